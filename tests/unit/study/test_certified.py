"""Certified shares before classifiers at hand: counted by hand, and as the command prints them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from smoothapi.certify import clopper_pearson_lower, clopper_pearson_upper
from smoothapi.denoise import load
from smoothapi.denoise.plain import NoDenoiser
from smoothapi.denoise.runtime import LocalRuntime
from smoothapi.denoise.training.surrogates import Classifier
from smoothapi.errors import UnreachableRadiusError, UsageError
from smoothapi.image import load_image
from smoothapi.noise import noisy_variants
from smoothapi.study.certified import (
    Terms,
    certified,
    certify_photo,
    noise_key,
    out_of_reach,
    read_truth,
)
from tests.conftest import invoke

TERMS = Terms(radius=0.1, alpha=0.01, max_votes=40)
SIDE = 12


class Strongest(nn.Module):
    """The colour that is strongest on average: 0 red, 1 green, 2 blue."""

    def forward(self, x):
        return x.mean((2, 3))


class Blue(nn.Module):
    """Calls everything blue."""

    def forward(self, x):
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)


def strongest():
    return Classifier("strongest", Strongest(), 0)


def blue():
    return Classifier("blue", Blue(), 0)


def colour(number: int, by: float) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), 110, np.uint8)
    picture[..., number] += np.uint8(by)
    return picture


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures() -> dict[str, np.ndarray]:
    """Three that are plain to see, and one that noise decides."""
    return {
        "red.png": colour(0, 100),
        "green.png": colour(1, 100),
        "below/blue.png": colour(2, 100),
        "grey.png": colour(0, 1),
    }


@pytest.fixture
def photos(pictures):
    return {name: load_image(picture) for name, picture in pictures.items()}


@pytest.fixture
def folder(pictures, tmp_path):
    for name, picture in pictures.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "photos"


def test_shares_are_counted_with_exact_intervals(photos):
    truth = {"red.png": 0, "green.png": 0, "blue.png": 2, "grey.png": 0}
    found = certified(load(None), photos, [strongest(), blue()], TERMS, sigmas=[0.3], truth=truth)
    ours, constant = found.rows
    assert (ours.classifier, ours.sigma, ours.photos, ours.known) == ("strongest", 0.3, 4, 4)
    # Green is certified as green, but said to be red; grey is given up.
    assert (ours.clean_right.share, ours.right.share, ours.as_clean.share, ours.wrong.share) == (
        0.75, 0.5, 0.75, 0.25,
    )  # fmt: skip
    assert ours.right.low == pytest.approx(clopper_pearson_lower(2, 4, 0.025))
    assert ours.right.high == pytest.approx(clopper_pearson_upper(2, 4, 0.025))
    # What calls everything by one name is certified everywhere, and wrong.
    assert (constant.as_clean.share, constant.right.share, constant.wrong.share) == (1, 0.25, 0.75)
    ends = {(end.classifier, end.photo): end for end in found.photos}
    assert ends["strongest", "green.png"].label == 1
    assert ends["strongest", "grey.png"].label is None
    assert ours.mean_votes == np.mean([ends["strongest", name].votes for name in photos])
    assert len(ends) == 8


def test_without_truth_and_with_some_of_it(photos):
    bare = certified(load(None), photos, [strongest()], TERMS, sigmas=[0.3])
    (row,) = bare.rows
    assert (row.known, row.right, row.wrong, row.clean_right) == (0, None, None, None)
    assert row.as_clean.share == 0.75
    some = certified(load(None), photos, [strongest()], TERMS, sigmas=[0.3], truth={"red.png": 0})
    assert (some.rows[0].known, some.rows[0].right.share, some.rows[0].photos) == (1, 1.0, 4)
    with pytest.raises(UsageError, match="none of the photos"):
        certified(load(None), photos, [blue()], TERMS, sigmas=[0.3], truth={"other.png": 0})


def test_votes_are_those_of_the_keyed_noise(photos):
    image, key = photos["grey.png"], noise_key(7)
    votes: dict[str, list[int]] = {"s": []}
    runtime = load(None)
    certify_photo(image, runtime, {"s": strongest()}, TERMS, sigma=0.3, key=key, votes=votes)
    noisy = noisy_variants(image, 0.3, range(len(votes["s"])), key)
    seen = runtime.variants(noisy, 0.3)
    assert votes["s"] == [int(v.astype(float).mean((0, 1)).argmax()) for v in seen]
    assert len(set(votes["s"])) > 1


def test_votes_that_are_known_are_not_bought_again(photos, monkeypatch):
    image, key = photos["red.png"], noise_key(0)
    votes: dict[str, list[int]] = {"s": [], "b": []}
    first = certify_photo(
        image, load(None), {"s": strongest()}, TERMS, sigma=0.3, key=key, votes=votes
    )
    monkeypatch.setattr(NoDenoiser, "variants", None)
    kept = list(votes["s"])
    again = certify_photo(
        image, load(None), {"s": strongest()}, TERMS, sigma=0.3, key=key, votes=votes
    )
    assert again == first
    assert votes["s"] == kept


def test_on_a_card_noise_is_drawn_there(photos, monkeypatch):
    def half(noisy, _sigma):
        return 0.5 * noisy

    sizes = []
    draw = LocalRuntime.variants_of

    def counted(self, pixels, sigma, seeds):
        sizes.append(len(seeds))
        return draw(self, pixels, sigma, seeds)

    terms = Terms(radius=0.1, alpha=0.01, max_votes=100)
    runtime = load(half, name="half", device="cpu")
    plain = certified(runtime, photos, [strongest()], terms, sigmas=[0.3])
    assert not sizes
    monkeypatch.setattr(LocalRuntime, "variants_of", counted)
    monkeypatch.setattr(LocalRuntime, "draws_noise", property(lambda _: True))
    monkeypatch.setattr(LocalRuntime, "variants", None)
    runtime = load(half, name="half", device="cpu")
    assert certified(runtime, photos, [strongest()], terms, sigmas=[0.3]) == plain
    assert set(sizes) <= {64, 36}


def test_classifiers_go_to_the_denoisers_device(photos, monkeypatch):
    seen = []
    move = Classifier.to
    monkeypatch.setattr(
        Classifier, "to", lambda self, device: (seen.append(str(device)), move(self, device))[1]
    )
    certified(load(None, device="cpu"), photos, [strongest()], TERMS, sigmas=[0.3])
    assert seen == ["cpu"]


def test_what_is_out_of_reach_is_said_and_the_rest_goes_on(photos):
    found = certified(load(None), photos, [blue()], TERMS, sigmas=[0.02, 0.3])
    assert [row.sigma for row in found.rows] == [0.3]
    assert "at least" in found.unreachable[0.02]
    assert found.to_dict()["unreachable"][0]["sigma"] == 0.02
    with pytest.raises(UnreachableRadiusError, match=r"radius 0\.1 at sigma 0\.02"):
        out_of_reach(TERMS, [0.02], 432)


@pytest.mark.parametrize(
    ("terms", "sigma"),
    [(Terms(max_votes=0), 0.3), (Terms(alpha=1.0), 0.3), (Terms(radius=-1.0), 0.3), (TERMS, 1.6),
     (TERMS, 0.0)],
)  # fmt: skip
def test_impossible_terms_are_refused(photos, terms, sigma):
    with pytest.raises(UsageError):
        certified(load(None), photos, [blue()], terms, sigmas=[sigma])


def test_nothing_to_count_and_two_of_one_name_are_refused(photos):
    with pytest.raises(UsageError, match="without a photo"):
        certified(load(None), {}, [blue()], TERMS, sigmas=[0.3])
    with pytest.raises(UsageError, match="without a classifier"):
        certified(load(None), photos, [], TERMS, sigmas=[0.3])
    with pytest.raises(UsageError, match="Two classifiers are called 'blue'"):
        certified(load(None), photos, [blue(), blue()], TERMS, sigmas=[0.3])


def test_truth_is_read_from_csv(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffFile,label,name\nred.png, 0 ,red\nbelow\\blue.png,2,blue\nno.png,,\n")
    assert read_truth(path) == {"red.png": 0, "below/blue.png": 2}
    path.write_text("file,class_index\na.png,7\na.png,7\n")
    assert read_truth(path) == {"a.png": 7}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,name\na.png,cat\n", "need a header"),
        ("", "need a header"),
        ("file,label\na.png,cat\n", "Line 2 .*'cat'.* not a class number"),
        ("file,label\na.png,-1\n", "not a class number"),
        ("file,label\na.png,1\na.png,2\n", "and again"),
    ],
)
def test_truth_that_cannot_be_used_is_refused(tmp_path, text, match):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=match):
        read_truth(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_truth(path)


@pytest.fixture
def command(folder, tmp_path, monkeypatch):
    (tmp_path / "colours_at_hand.py").write_text(
        "from smoothapi.denoise.training.surrogates import Classifier\n"
        "from tests.unit.study.test_certified import Strongest\n"
        "def strongest():\n    return Classifier('strongest', Strongest(), 0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    truth = tmp_path / "labels.csv"
    truth.write_text("file,label\nred.png,0\ngreen.png,1\nblue.png,2\ngrey.png,1\n")

    def run(*arguments: object):
        given = ["eval", folder, "--weights", "none", "--size", SIDE, *arguments]
        return invoke("denoiser", *given)

    run.truth = truth
    run.judge = ("--classifier", "colours_at_hand:strongest")
    run.terms = ("--certify", "--radius", 0.1, "--alpha", 0.01, "--max-votes", 40, "--sigma", 0.3)
    return run


def test_the_command_prints_certified_shares(command):
    result = command(*command.judge, *command.terms, "--truth", command.truth, "--sigma", 0.02)
    assert result.exit_code == 0, result.output
    table = result.stdout
    assert "Certified at radius 0.1 with at most 40 votes, alpha 0.01, of 4 photos" in table
    assert "75.0%" in table
    assert "(19-99%)" in table
    assert "right by" in table
    assert "No row for sigma 0.02" in result.stderr
    bare = command(*command.judge, *command.terms)
    assert "as clean" in bare.stdout
    assert "wrong" not in bare.stdout


def test_json_carries_everything(command):
    result = command(*command.judge, *command.terms, "--truth", command.truth, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    found = report["certified"]
    assert found["terms"] == {"radius": 0.1, "alpha": 0.01, "max_votes": 40}
    (row,) = found["rows"]
    assert row["right"] == {
        "share": 0.75,
        "low": pytest.approx(clopper_pearson_lower(3, 4, 0.025)),
        "high": pytest.approx(clopper_pearson_upper(3, 4, 0.025)),
    }
    assert {end["photo"] for end in found["photos"]} == {
        "red.png", "green.png", "below/blue.png", "grey.png",
    }  # fmt: skip
    assert report["rows"][0]["accuracy"] == {"strongest": pytest.approx(0.75, abs=0.25)}
    assert "certified" not in json.loads(command(*command.judge, "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--certify",), "--classifier"),
        (("--radius", 0.3), "--certify"),
        (("--max-votes", 3), "--certify"),
        (("--truth", __file__), "--classifier"),
    ],
)
def test_options_that_belong_together_are_asked_for(command, arguments, text):
    result = command(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_terms_out_of_reach_end_the_command_at_once(command):
    result = command(*command.judge, "--certify", "--max-votes", 3)
    assert result.exit_code == 2
    assert "only 3 are allowed" in " ".join(result.stderr.split())
