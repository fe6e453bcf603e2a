"""A model on this machine: loaded without pickles, told by its weights, asked as a service is."""

from __future__ import annotations

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from smoothapi import Smoother
from smoothapi.answer import Answer, Label
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, ProviderError, UsageError
from smoothapi.provider import make_adapter
from smoothapi_adapters.torch import TorchAdapter
from tests.contract.colour_models import COLOURS, Colours, colour_module, write_onnx

SHARED = Path(__file__).parents[4] / "shared/data/classifiers"
PHOTOS = Path(__file__).parents[3] / "examples/photos"


def png(colour, size=(20, 16)):
    return Codec("png").encode(np.full((size[1], size[0], 3), colour, dtype=np.uint8))


RED, BLUE = png((220, 30, 30)), png((30, 30, 220))


def asked(adapter, payloads=(RED,)):
    try:
        return adapter.ask(payloads)
    except ProviderError as error:
        return [error] * len(payloads)


def tops(adapter, payloads=(RED, BLUE)):
    return [answer.labels[0].name for answer in adapter.ask(payloads)]


@pytest.fixture
def script(tmp_path):
    import warnings

    path = tmp_path / "colours.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Colours().eval()), str(path))
    return path


def test_a_module_an_onnx_and_a_script_say_the_same(tmp_path, script):
    onnx = write_onnx(tmp_path / "colours.onnx", side=16)
    adapters = [TorchAdapter(m, labels=COLOURS, size=16) for m in (Colours(), onnx, script)]
    answers = [adapter.ask([RED, BLUE]) for adapter in adapters]
    for one in answers:
        assert [answer.labels[0].name for answer in one] == ["red", "blue"]
        for mine, first in zip(one, answers[0], strict=True):
            assert [label.name for label in mine.labels] == [label.name for label in first.labels]
            got, wanted = ([label.score for label in a.labels] for a in (mine, first))
            assert got == pytest.approx(wanted, abs=1e-6)
    assert len({json.dumps(adapter.identity) for adapter in adapters}) == 3


@pytest.mark.skipif(not SHARED.is_dir(), reason="the classifiers are not here")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # onnx2torch does
def test_a_classifier_of_the_world_knows_the_photos_that_ship():
    photos = {name: (PHOTOS / f"{name}.jpg").read_bytes() for name in ("monarch", "balloon")}
    adapter = make_adapter(
        "torch",
        model=str(SHARED / "efficientnet_lite0.onnx"),
        labels=str(SHARED / "imagenet_classes.csv"),
    )
    assert tops(adapter, list(photos.values())) == list(photos)


def test_a_graph_for_one_picture_is_asked_one_by_one(tmp_path):
    adapter = TorchAdapter(write_onnx(tmp_path / "one.onnx", side=16, batch=1), labels=COLOURS)
    assert tops(adapter, [RED, BLUE, RED]) == ["red", "blue", "red"]


def test_dropout_is_off_and_gradients_are_not_kept():
    module = Colours()
    assert module.training
    adapter = TorchAdapter(module, labels=COLOURS)
    answers = [adapter.ask([RED])[0] for _ in range(5)]
    assert len(set(answers)) == 1
    module.train()
    assert adapter.ask([RED])[0] == answers[0]


def test_the_identity_is_made_of_what_decides_answers():
    base = TorchAdapter(Colours(), labels=COLOURS).identity
    assert TorchAdapter(Colours(), labels=COLOURS).identity == base

    def changed(name):
        module = Colours()
        with torch.no_grad():
            getattr(module.linear, name, module.middle)[0] += 1e-6
        return module

    others = [TorchAdapter(changed(n), labels=COLOURS) for n in ("weight", "bias", "middle")]
    module = Colours()
    module.dropout = nn.Identity()
    others.append(TorchAdapter(module, labels=COLOURS))
    others.append(TorchAdapter(Colours().to(torch.bfloat16), labels=COLOURS))
    changes = (
        {"labels": COLOURS[::-1]},
        {"size": 32},
        {"resize": "stretch"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": "0.5,0.5,0.5"},
        {"scores": "sigmoid"},
        {"top": 3},
        {"min_score": 0.1},
        {"preprocess": str, "preprocess_id": "a"},
        {"model_id": "v2"},
    )
    others += [TorchAdapter(Colours(), **{"labels": COLOURS, **change}) for change in changes]
    identities = [json.dumps(adapter.identity) for adapter in others]
    assert json.dumps(base) not in identities
    assert len(set(identities)) == len(identities)


def test_weights_that_cannot_be_read_need_a_name():
    model = nn.LazyLinear(3)
    with pytest.raises(UsageError, match="model_id"):
        _ = TorchAdapter(model).identity
    assert TorchAdapter(model, model_id="mine").identity["model"] == "mine"


def test_scripts_are_told_apart_by_their_code(tmp_path, script):
    import warnings

    class Other(Colours):
        def forward(self, x):
            return -self.linear(self.dropout(x.mean(dim=(2, 3)) - self.middle))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Other().eval()), str(tmp_path / "other.pt"))
    one, other = TorchAdapter(script), TorchAdapter(tmp_path / "other.pt")
    assert one.identity["model"] != other.identity["model"]


def test_a_callable_without_an_id_never_shares_stored_answers():
    def crop(picture):
        return torch.zeros(3, 4, 4)

    one, other = (TorchAdapter(Colours(), preprocess=crop) for _ in range(2))
    assert one.identity != other.identity
    assert one.identity == one.identity
    module = Colours()

    def plain_function(x):
        return module(x)

    plain = [TorchAdapter(plain_function) for _ in range(2)]
    assert plain[0].identity != plain[1].identity
    assert asked(plain[0])[0].labels


def test_a_preprocess_of_ones_own_sees_the_rgb_picture():
    seen = []

    def preprocess(picture):
        seen.append((picture.mode, picture.size))
        return torch.from_numpy(np.array(picture.resize((8, 8)))).permute(2, 0, 1) / 255

    adapter = TorchAdapter(Colours(), labels=COLOURS, preprocess=preprocess, preprocess_id="mine")
    assert tops(adapter) == ["red", "blue"]
    assert seen == [("RGB", (20, 16))] * 2
    gray = Image.new("L", (9, 9), 255)
    import io

    stream = io.BytesIO()
    gray.save(stream, "PNG")
    assert tops(adapter, [stream.getvalue()]) == ["white"]


def test_pictures_of_several_sizes_go_one_by_one():
    adapter = TorchAdapter(Colours(), labels=COLOURS, resize="none")
    assert tops(adapter, [RED, png((30, 30, 220), (7, 9))]) == ["red", "blue"]


def test_resizing_and_normalising():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.zeros(len(x), 2)

    half = np.zeros((10, 30, 3), dtype=np.uint8)
    half[:, 10:20] = (255, 0, 51)
    payload = Codec("png").encode(half)
    TorchAdapter(Watch(), size=4, mean=(0.5, 0, 0), std="0.5, 1, 1").ask([payload])
    assert seen[0].shape == (1, 3, 4, 4)
    assert seen[0].dtype == torch.float32
    assert torch.allclose(seen[0][0, :, 2, 2], torch.tensor([1.0, 0.0, 0.2]), atol=0.01)
    TorchAdapter(Watch(), size=4, resize="stretch").ask([payload])
    assert seen[1][0, 0, 0, 0] < 0.1
    TorchAdapter(Watch(), resize="none").ask([payload])
    assert seen[2].shape == (1, 3, 10, 30)


class Says(nn.Module):
    def __init__(self, said):
        super().__init__()
        self.said = said

    def forward(self, x):
        return self.said(x) if callable(self.said) else self.said


class Output:
    logits = torch.tensor([[0.0, 1.0]])


@pytest.mark.parametrize(
    "said", [torch.tensor([[0.0, 1.0]]), (torch.tensor([[0.0, 1.0]]), 5), {"logits": torch.tensor([[0.0, 1.0]])}, Output()]
)  # fmt: skip
def test_what_models_of_several_libraries_return(said):
    [answer] = TorchAdapter(Says(said)).ask([RED])
    assert answer.labels[0].name == "1"
    assert answer.labels[0].score == pytest.approx(np.e / (1 + np.e))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (torch.zeros(2), FatalError),
        (torch.zeros(2, 5), FatalError),
        (torch.zeros(1, 5, 2), FatalError),
        ("text", FatalError),
        ((), FatalError),
        (lambda x: 1 / 0, FatalError),
        (torch.tensor([[float("nan"), 1.0]]), PermanentError),
        (torch.tensor([[float("inf"), 1.0]]), PermanentError),
    ],
)
def test_what_is_no_score_for_each_class(said, kind):
    [outcome] = asked(TorchAdapter(Says(said)))
    assert type(outcome) is kind


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ("softmax", [("b", 0.952574), ("a", 0.047426)]),
        ("sigmoid", [("b", 0.952574), ("a", 0.5)]),
        ("probabilities", None),
    ],
)
def test_scores(scores, labels):
    adapter = TorchAdapter(Says(torch.tensor([[0.0, 3.0]])), labels=["a", "b"], scores=scores)
    [outcome] = asked(adapter)
    if labels is None:
        assert type(outcome) is FatalError
        assert "softmax" in str(outcome)
    else:
        assert [(x.name, pytest.approx(x.score, abs=1e-6)) for x in outcome.labels] == labels


def test_probabilities_top_and_min_score():
    said = torch.tensor([[0.2, 0.5000001, 0.2, 0.1]])
    options = {"scores": "probabilities", "labels": ["a", "b", "c", "d"]}
    [answer] = TorchAdapter(Says(said), top="3", **options).ask([RED])
    assert [label.name for label in answer.labels] == ["b", "a", "c"]
    [answer] = TorchAdapter(Says(said), min_score=0.3, **options).ask([RED])
    assert [label.name for label in answer.labels] == ["b"]
    [answer] = TorchAdapter(Says(torch.zeros(1, 4)), min_score=0.3, **options).ask([RED])
    assert answer.labels == ()
    [answer] = TorchAdapter(Says(torch.ones(1, 4) + 1e-7), top=1, **options).ask([RED])
    assert answer.labels == (Label("a", 1.0),)


def test_wrong_names_are_refused():
    [outcome] = asked(TorchAdapter(Colours(), labels=["one", "two"]))
    assert type(outcome) is FatalError
    assert "8 classes" in str(outcome)


def test_junk_beside_a_picture():
    outcomes = TorchAdapter(Colours(), labels=COLOURS).ask([b"junk", RED, RED[:40]])
    assert [type(outcome) for outcome in outcomes] == [PermanentError, Answer, PermanentError]
    assert asked(TorchAdapter(Colours()), [b""])[0].request_id == ""


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_no_pickle_is_ever_read(tmp_path):
    torch.save({"w": Evil()}, tmp_path / "state.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    for path in tmp_path.glob("*.pt"):
        with pytest.raises(UsageError, match="pickle"):
            _ = TorchAdapter(path).identity
        with pytest.raises(UsageError, match="cannot be loaded"):
            _ = TorchAdapter(Colours(), weights=path).identity
    with pytest.raises(UsageError, match="pickled"):
        TorchAdapter(str(tmp_path / "model.pkl"))
    assert not Path("pwned").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_are_loaded_into_what_a_name_builds(suffix, tmp_path):
    state = {name: -value for name, value in Colours().state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    built = f"{colour_module.__module__}:colour_module"
    negative = make_adapter("torch", model=built, labels=COLOURS, weights=str(path))
    assert tops(TorchAdapter(built, labels=COLOURS)) == ["red", "blue"]
    assert tops(negative) == ["cyan", "yellow"]
    assert negative.identity["model"] != TorchAdapter(built).identity["model"]
    with pytest.raises(UsageError, match="cannot be loaded"):
        _ = TorchAdapter(nn.Linear(2, 2), weights=path).identity


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's of TorchScript
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_is_asked_in_its_own_precision(dtype, tmp_path):
    module = Colours().eval().to(dtype)
    assert tops(TorchAdapter(module, labels=COLOURS, size=16)) == ["red", "blue"]
    assert next(module.parameters()).dtype is dtype
    torch.jit.save(torch.jit.script(module), str(tmp_path / "m.pt"))
    assert tops(TorchAdapter(tmp_path / "m.pt", labels=COLOURS, size=16)) == ["red", "blue"]
    prepared = TorchAdapter(
        module, labels=COLOURS, preprocess=lambda _: torch.zeros(3, 16, 16), preprocess_id="0"
    )
    assert prepared.ask([RED])[0].labels


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_weights_of_training_code_are_loaded(dtype, prefix, tmp_path):
    state = {f"{prefix}{k}": -v.to(dtype) for k, v in Colours().state_dict().items()}
    torch.save({"epoch": 1, "model_state_dict": state}, tmp_path / "w.pth")
    built = f"{colour_module.__module__}:colour_module"
    adapter = TorchAdapter(built, labels=COLOURS, weights=tmp_path / "w.pth")
    assert tops(adapter) == ["cyan", "yellow"]


def test_a_name_may_be_of_a_module_or_of_a_preprocess(monkeypatch):
    here = sys.modules[__name__]
    monkeypatch.setattr(here, "ready", Colours(), raising=False)
    monkeypatch.setattr(here, "shrink", lambda p: torch.zeros(3, 2, 2) + 1, raising=False)
    name = here.__name__
    adapter = TorchAdapter(f"{name}:ready", labels=COLOURS, preprocess=f"{name}:shrink")
    assert tops(adapter, [RED]) == ["white"]
    assert adapter.identity["preprocess"] == f"{name}:shrink"


def test_names_of_classes_from_files(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(COLOURS) + "\n")
    (tmp_path / "names.json").write_text(json.dumps(COLOURS))
    (tmp_path / "names.csv").write_text(
        "index,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(COLOURS))
    )
    for path in tmp_path.iterdir():
        assert tops(TorchAdapter(Colours(), labels=path)) == ["red", "blue"]
        assert TorchAdapter(Colours(), labels=str(path)).identity == (
            TorchAdapter(Colours(), labels=COLOURS).identity
        )


@pytest.mark.parametrize(
    "options",
    [
        {"model": None},
        {"model": 5},
        {"model": "no_such_file.onnx"},
        {"model": "no_such_file.pt"},
        {"model": "resnet50"},
        {"model": "a:b c"},
        {"model": ":x"},
        {"labels": "no_such_names.txt"},
        {"labels": []},
        {"labels": ["a", ""]},
        {"labels": ["a", 5]},
        {"weights": "no_such_weights.safetensors"},
        {"preprocess": 5},
        {"preprocess": "no.such:thing"},
        {"resize": "squeeze"},
        {"mean": (1, 2)},
        {"mean": "a,b,c"},
        {"std": (1, 0, 1)},
        {"std": (1, float("nan"), 1)},
        {"scores": "logits"},
        {"top": 0},
        {"min_score": 2},
        {"batch": 0},
        {"size": 0},
        {"device": "tpu"},
        {"name": "My Model"},
        {"price": "free"},
    ],
)
def test_options_that_cannot_work(options):
    with pytest.raises(UsageError):
        TorchAdapter(**{"model": Colours(), **options})


def test_names_that_cannot_be_imported():
    for spec in ("no_such_module:x", "json:no_such_attribute"):
        with pytest.raises(UsageError, match="cannot be imported"):
            _ = TorchAdapter(spec).identity


def test_threads_share_a_model():
    adapter = TorchAdapter(Colours(), labels=COLOURS)
    payloads = [RED, BLUE] * 20
    with ThreadPoolExecutor(16) as threads:
        names = list(threads.map(lambda payload: tops(adapter, [payload])[0], payloads))
    assert names == ["red", "blue"] * 20


def test_a_certificate_of_a_model_names_it():
    photo = np.full((24, 24, 3), (220, 30, 30), dtype=np.uint8)
    adapter = TorchAdapter(Colours(), labels=COLOURS)
    with Smoother(adapter, denoiser="none", sigma=0.25, radius=0.25, max_votes=300) as smoother:
        certificate = smoother.certify(photo)
    assert certificate.label == "red"
    assert certificate.cost == 0
    assert certificate.model_version == certificate.identity["model"]
