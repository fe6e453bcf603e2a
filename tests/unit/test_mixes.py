"""Mixes of shares that a deployment learnt: counted, kept, gone by, recorded, and told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
from PIL import Image

from smoothapi import Answer, Label, Presence, Smoother, parts, verify
from smoothapi.certificates import Certificate
from smoothapi.certify import SequentialCertify, futility, queries_needed
from smoothapi.certify.evalue import boundary
from smoothapi.certify.futility import DEFAULT_MIX, ChanceRule, Mix, PriceRule
from smoothapi.certify.labels import LabelSpace
from smoothapi.cli import run
from smoothapi.errors import PermanentError, StoreError, UsageError
from smoothapi.mixes import Deployment, Mixes, PastPhoto, futility_rule, past_photos
from smoothapi.store import Home, Replay
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import ScriptedAdapter, answer

PHOTO = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
BEFORE = Deployment("cloud", "7a3f", 0.25)  # as it was noted before
WHERE = Deployment.of(
    provider="cloud", identity={}, denoiser="7a3f", sigma=0.25, size=(3, 4), space=None
)
# All photos are hopeless, or none is: runs are given up at the first loss, or hardly ever.
HOPELESS, SURE = Mix((0.01,), (1.0,), photos=9), Mix((0.05, 0.97), (0.0, 1.0), photos=7)


def asked(index: int | None = 0, image: str = "ab", **changes: object) -> dict[str, object]:
    about = {"provider": "cloud", "identity": {}, "image": image, "size": [3, 3], "codec": "png/1"}
    if index is None:
        return {**about, "plain": True, **changes}
    noise = {"sigma": 0.25, "noise": "k", "denoiser": "7a3f"}
    return {**about, **noise, "index": index, **changes}


def bus(score: float = 0.9) -> Answer:
    return Answer((Label("bus", score),))


def test_votes_of_a_photo_are_counted_once():
    van, none, failed = Answer((Label("van", 0.9),)), Answer(()), PermanentError("no")
    rows = [
        (asked(0), bus()), (asked(1), bus()), (asked(2), van), (asked(3), none),
        (asked(4), failed), (asked(1), van),  # asked again, as a recording may have it
        (asked(None), bus()),
        ({"provider": "cloud", "identity": {}, "payload": "ff"}, bus()),
        (asked(0, "cd"), van),
        (asked(0, noise="another"), bus()),
        (asked(0, identity={"region": "x"}), bus()),
        (asked(0, sigma=0.5), none),
    ]  # fmt: skip
    found = past_photos(rows)
    assert sorted((p.k, p.n) for p in found if p.deployment == WHERE) == [(1, 1), (1, 1), (2, 5)]
    elsewhere = replace(WHERE, options=found[3].deployment.options)
    assert [(p.k, p.n) for p in found if p.deployment == elsewhere != WHERE] == [(1, 1)]
    assert [(p.k, p.n) for p in found if p.deployment.sigma == 0.5] == [(0, 1)]


def test_votes_are_counted_by_the_callers_classes():
    space = LabelSpace({"vehicle": ["bus", "van"]})
    rows = [(asked(0), bus()), (asked(1), Answer((Label("van", 0.8),)))]
    ours = replace(WHERE, classes=space.digest[:16])
    assert past_photos(rows, space) == [PastPhoto(ours, 2, 2)]
    assert past_photos(rows) == [PastPhoto(WHERE, 1, 2)]


def test_each_deployment_has_its_mix():
    other = Deployment("cloud", "7a3f", 0.5)
    learnt = Mixes.learnt([PastPhoto(WHERE, 40, 40)] * 30 + [PastPhoto(other, 10, 40)] * 20)
    sure, unsure = learnt.mix(WHERE), learnt.mix(other)
    assert (sure.photos, unsure.photos) == (30, 20)
    assert np.dot(sure.shares, sure.weights) > np.dot(unsure.shares, unsure.weights)
    assert learnt.mix(Deployment("another", "7a3f", 0.25)) is None
    assert futility_rule(learnt, WHERE) == PriceRule(sure)
    assert futility_rule(learnt, Deployment("cloud", "other", 0.25)) == PriceRule()
    assert futility_rule(None, WHERE) == ChanceRule()


@pytest.mark.parametrize(
    "changes", [{"options": "ab"}, {"size": 4}, {"classes": "ab"}, {"sigma": 0.3}]
)
def test_a_mix_is_of_its_options_its_size_and_its_classes(changes):
    learnt = Mixes({WHERE: HOPELESS})
    assert learnt.mix(WHERE) == HOPELESS
    assert learnt.mix(replace(WHERE, **changes)) is None


def test_a_mix_from_before_is_of_them_all(tmp_path):
    rows = [
        {
            "provider": "cloud", "denoiser": "7a3f", "sigma": 0.25, "photos": 7,
            "shares": [0.05, 0.97], "weights": [0.0, 1.0],
        }
    ]  # fmt: skip
    before = Mixes.from_dict({"schema": "smoothapi.mixes/1", "mixes": rows})
    assert before == Mixes({BEFORE: SURE})
    assert before.mix(WHERE) == SURE
    with Home(tmp_path) as home:
        before.save(home)
        assert Mixes.load(home).mix(WHERE) == SURE


@pytest.mark.parametrize("mix", [HOPELESS, Mix((0.3, 0.6), (0.5, 0.5), photos=400)])
@pytest.mark.parametrize("radius", [0.25])
def test_a_mix_of_hopeless_photos_costs_few_certificates(mix, radius):
    def chances(rule):
        return np.array(
            [
                queries_needed(radius, 0.25, 0.001, p, max_votes=300, futility=rule).certified
                for p in (0.9, 0.95, 0.99)
            ]
        )

    lost = chances(PriceRule()) - chances(PriceRule(mix))
    assert -0.01 < lost.max() <= 0.055  # 0.05 at the shares that it was worked out for
    # The mutant: as the mix alone would have it.
    assert (chances(PriceRule()) - chances(Alone(mix))).max() > 0.1
    # It does not count above 2,000 votes, where that is not worked out.
    enough = boundary(0.85, 0.001)
    votes, losses = np.array([30, 60, 200]), np.array([3, 20, 60])
    rules = (PriceRule(mix), PriceRule())
    one, other = (rule.gives_up(votes, losses, enough, 3_000) for rule in rules)
    assert (one == other).all()


class Alone:
    def __init__(self, mix):
        self.mix = mix

    def gives_up(self, votes, losses, enough, max_votes):
        fewest = futility._fewest_hopeful(self.mix, enough, max_votes)
        return np.asarray(votes) < fewest[np.minimum(losses, len(fewest) - 1)]


def test_mixes_are_kept(tmp_path):
    home = Home(tmp_path / "new")
    assert Mixes.load(home) == Mixes({})
    mixes = Mixes.learnt([PastPhoto(WHERE, 3, 9), PastPhoto(WHERE, 9, 9)])
    for kept in (mixes, Mixes({WHERE: HOPELESS})):
        kept.save(home)
        assert Mixes.load(home) == kept
        assert Mixes.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
    assert [each.name for each in home.folder.iterdir()] == ["mixes.json"]


def row(**changes: object) -> dict[str, object]:
    good = Mixes({WHERE: SURE}).to_dict()
    return {**good, "mixes": [{**good["mixes"][0], **changes}]}


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "[]", "{}", '{"schema": "smoothapi.mixes/9"}', '{"schema": "smoothapi.mixes/2"}',
        "[" * 100_000,
        *(
            json.dumps(row(**changes))
            for changes in (
                {"size": None}, {"weights": [1.0]}, {"weights": [0.2, 0.2]}, {"shares": [0.9, 0.2]},
                {"shares": "x"}, {"photos": -1}, {"photos": None}, {"sigma": "x"},
            )
        ),
        json.dumps({**row(), "mixes": 3}),
        json.dumps({**row(), "mixes": [3]}),
    ],
)  # fmt: skip
def test_a_damaged_file_says_what_to_do(tmp_path, text):
    file = tmp_path / "mixes.json"
    file.write_text(text)
    with pytest.raises(StoreError, match=r"plan --learn"):
        Mixes.load(Home(tmp_path))
    with pytest.raises(StoreError, match=r"mixes\.json"):
        Smoother(ScriptedAdapter(), denoiser="none", home=tmp_path)


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Mixes({}).save(Home(tmp_path / "file"))


def smoother(home, provider=None, **options):
    options = {"denoiser": "none", "size": 12, "radius": 0.1, "home": home, **options}
    return Smoother(provider or MockAdapter({"bus": 0.9, "van": 0.1}, seed=2), **options)


def keep(home, mix, **options):
    """Keep a mix as that of the smoother's own deployment."""
    with smoother(home, **options) as s:
        Mixes({s.session.deployment: mix}).save(Home(home))


def halves():
    """Half of the first votes are lost: by default that is given up."""
    script = chain([answer("bus"), answer("van")] * 20, repeat(answer("bus")))
    return ScriptedAdapter(lambda *_: next(script))


def test_a_learnt_mix_decides_when_a_run_is_given_up_and_the_certificate_names_it(tmp_path):
    options = {"plain": False, "concurrency": 1, "max_votes": 200}
    with smoother(tmp_path / "other", halves(), **options) as s:
        given_up = s.certify(PHOTO)
        planned = dict(s.plan(PHOTO).expected)
    assert (given_up.reason, given_up.mix) == ("unlikely", "")
    keep(tmp_path, SURE, provider=ScriptedAdapter())
    with smoother(tmp_path, halves(), **options) as s:
        certified = s.certify(PHOTO)
        assert dict(s.plan(PHOTO).expected)[0.9] > planned[0.9]
    assert (certified.label, certified.mix) == ("bus", SURE.digest)
    # Another sigma is another deployment.
    with smoother(tmp_path, ScriptedAdapter(), sigma=0.3) as s:
        assert s.session.learnt_mix is None
        assert s.certify(PHOTO).mix == ""
    for certificate in (given_up, certified):
        again = Certificate.from_json(certificate.to_json())
        assert again == certificate
        assert again.mix == certificate.mix
        verify(again, PHOTO)
        # It is for information: no claim rests on it.
        changed = json.loads(certificate.to_json()) | {"mix": "ab"}
        verify(Certificate.from_dict(changed), PHOTO)


def test_what_is_certified_after_another_rule_would_have_given_up_verifies(tmp_path):
    # Half of the first votes are lost: by default, and by the rule before it, that is given up.
    script = chain([answer("bus"), answer("van")] * 20, repeat(answer("bus")))
    adapter = ScriptedAdapter(lambda *_: next(script))
    keep(tmp_path, SURE, provider=ScriptedAdapter())
    with smoother(tmp_path, adapter, plain=False, concurrency=1, max_votes=200) as s:
        certificate = s.certify(PHOTO)
    assert certificate.label == "bus"
    verify(Certificate.from_json(certificate.to_json()), PHOTO)
    terms = {"sigma": 0.25, "alpha": 0.001, "max_votes": 200, "radius": 0.1}
    for rule in (ChanceRule(), PriceRule()):
        test = SequentialCertify(futility=rule, **terms)
        for vote in certificate.vote_order():
            if not test.done:
                test.add(vote)
        assert test.result().abstained


def test_only_what_a_mix_could_end_names_it(tmp_path):
    keep(tmp_path, SURE, provider=ScriptedAdapter())
    with smoother(tmp_path, ScriptedAdapter()) as s:
        assert s.certify(PHOTO).mix == s.certify(PHOTO, "largest").mix == SURE.digest
        assert s.certify(PHOTO, target=Presence("bus", 0.5)).mix == s.predict(PHOTO).mix == ""


@pytest.mark.parametrize("mix", [None, HOPELESS, SURE])
@pytest.mark.parametrize("unanswered", [False, True])
def test_whatever_ended_a_run_its_certificate_verifies(tmp_path, mix, unanswered):
    if mix:
        keep(tmp_path, mix)
    for seed in range(3):
        chances = {None: 1.0} if unanswered else {"bus": 0.6, "van": 0.2, None: 0.2}
        with smoother(tmp_path, MockAdapter(chances, seed=seed), max_votes=80) as s:
            for certificate in (s.certify(PHOTO), s.certify(PHOTO, "largest")):
                verify(Certificate.from_json(certificate.to_json()), PHOTO)


def test_a_replay_goes_by_the_recorded_mixes(tmp_path):
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "answers.jsonl"
    provider = {"provider": MockAdapter({"bus": 0.7, "van": 0.3}, seed=4)}
    keep(here, SURE, **provider)
    with smoother(here, **provider, record=file) as s:
        first = s.certify(PHOTO)
    keep(there, HOPELESS, **provider)
    with smoother(there, f"replay:{file}") as s:
        assert s.certify(PHOTO) == first
        assert s.session.learnt_mix == SURE
    assert first.mix == SURE.digest


def test_a_recording_from_before_mixes_goes_by_the_rule_of_its_time(tmp_path):
    file = tmp_path / "answers.jsonl"
    with smoother(tmp_path, record=file) as s:
        s.certify(PHOTO)
    lines = file.read_text().splitlines()
    head = json.loads(lines[0])
    assert head.pop("mixes")["mixes"] == []
    file.write_text("\n".join([json.dumps(head), *lines[1:]]) + "\n")
    assert Replay(str(file)).mixes is None
    with smoother(tmp_path, f"replay:{file}") as s:
        assert s.session.futility == ChanceRule()
        assert s.session.learnt_mix is None


def test_a_recording_with_other_mixes_is_refused(tmp_path):
    file = tmp_path / "answers.jsonl"
    with smoother(tmp_path, record=file) as s:
        s.certify(PHOTO)
    text = file.read_text().replace("smoothapi.mixes/2", "smoothapi.mixes/9")
    file.write_text(text)
    with pytest.raises(UsageError, match=r"smoothapi\.mixes/9"):
        smoother(tmp_path, f"replay:{file}")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Names of three photos, and a provider that is not sure of them."""
    chances = {"bus": 0.9, "van": 0.1}
    monkeypatch.setattr(parts, "make_adapter", lambda *_, **__: MockAdapter(chances, seed=2))
    files = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        file = tmp_path / f"{seed}.png"
        Image.fromarray(pixels).save(file)
        files.append(str(file))
    return files


CERTIFY = ("--denoiser", "none", "--provider", "mock", "--size", "24", "--max-votes", "60")


def test_plan_learns_from_what_is_stored(photos, tmp_path, capsys):
    home = ("--home", str(tmp_path / "home"))
    assert run(["certify", *photos, *CERTIFY, *home, "--radius", "0.1"]) in (0, 1)
    export = str(tmp_path / "answers.jsonl")
    assert run(["cache", *home, "export", export]) == 0
    capsys.readouterr()
    terms = ("--radius", "0.1", "--max-votes", "60", "--size", "24")
    assert run(["plan", "--learn", "--json", *home, *terms]) == 0
    learnt = json.loads(capsys.readouterr().out)
    (mix,) = learnt["mixes"]
    assert (mix["provider"], mix["sigma"], mix["photos"]) == ("mock", 0.25, 3)
    assert 0.0 < mix["mean_share"] < 1.0
    assert 0.0 < mix["queries"] < 60.0
    kept = Mixes.load(Home(tmp_path / "home"))
    assert [each.digest for each in kept.by_deployment.values()] == [mix["digest"]]
    # Nothing is counted twice, and what was answered elsewhere is counted too.
    assert run(["plan", "--learn", "--from", export, *home, *terms]) == 0
    out = capsys.readouterr().out
    assert "mock" in out
    assert "3 photos" in out
    assert "Nothing was sent" in out
    elsewhere = ("--home", str(tmp_path / "elsewhere"))
    assert run(["plan", "--learn", "--from", export, "--json", *elsewhere, *terms]) == 0
    assert json.loads(capsys.readouterr().out)["mixes"] == [mix]
    # An export says by which mixes its runs were given up.
    assert run(["cache", *home, "export", export]) == 0
    assert Mixes.from_dict(Replay(export).mixes) == kept


def test_a_damaged_answer_is_one_that_was_never_given(photos, tmp_path, capsys):
    home = ("--home", str(tmp_path / "home"))
    assert run(["certify", *photos, *CERTIFY, *home, "--radius", "0.1"]) in (0, 1)
    (file,) = (tmp_path / "home").rglob("cache.db")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE Cache SET value = '{' WHERE rowid = 5")
    capsys.readouterr()
    assert run(["plan", "--learn", "--json", *home, "--radius", "0.1", "--size", "24"]) == 0
    (mix,) = json.loads(capsys.readouterr().out)["mixes"]
    assert mix["photos"] == 3


def test_plan_learns_from_a_study(photos, tmp_path, capsys):
    study = (*CERTIFY, "--sigma", "0.25", "--radius", "0.1")
    home, out = ("--home", str(tmp_path / "one")), tmp_path / "study"
    assert run(["study", str(tmp_path), *study, *home, "--out", str(out)]) == 0
    capsys.readouterr()
    result = str(next(out.rglob("result.json")))
    assert run(["plan", "--learn", "--from", result, "--json", "--home", str(tmp_path / "b")]) == 0
    (mix,) = json.loads(capsys.readouterr().out)["mixes"]
    assert (mix["provider"], mix["sigma"], mix["photos"]) == ("mock", 0.25, 3)
    with smoother(tmp_path / "b", "mock", size=24) as s:
        assert s.session.learnt_mix.digest == mix["digest"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learn"], "certify some photos first"),
        (["--learn", "--p", "0.9"], "--p"),
        (["--from", "x.jsonl"], "--learn"),
        (["--learn", "--from", "x.jsonl"], "x.jsonl"),
        (["--learn", "--from", "deep.json"], "deep.json"),
    ],
)
def test_what_cannot_be_learnt(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("nonsense\n")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    assert run(["plan", *arguments, "--home", str(tmp_path / "home")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "home" / "mixes.json").exists()


def test_the_default_is_no_learnt_mix():
    assert DEFAULT_MIX.photos == 0
    assert PriceRule().mix is DEFAULT_MIX
