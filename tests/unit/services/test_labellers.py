"""What stands behind the mock: labels by chance, by table and by recording."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from smoothapi import Label, Smoother, load_image
from smoothapi.errors import ImageError, PermanentError, UsageError
from smoothapi.services import Latency, Probabilities, Recorded, Table, picture_digest
from smoothapi_adapters.mock import MockAdapter

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
NAMES = ["balloon", "monarch", "school_bus"]


def pictures(n, side=6):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def names(labeller, many):
    return [labels[0].name if (labels := labeller(picture)) else None for picture in many]


def test_each_label_comes_as_often_as_it_should_and_independently():
    chances = {"bus": 0.6, "van": 0.3, None: 0.1}
    many = pictures(20_000)
    one, two = (names(Probabilities(chances, seed=seed), many) for seed in (1, 2))
    for got in (one, two):
        seen = [got.count(name) for name in chances]
        assert stats.chisquare(seen, [20_000 * p for p in chances.values()]).pvalue > 1e-4
    table = [
        [sum(pair == (a, b) for pair in zip(one, two, strict=True)) for b in chances]
        for a in chances
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-4  # one seed tells nothing of another
    assert names(Probabilities(chances, seed=1), many[::-1]) == one[::-1]


def test_one_bit_of_a_picture_draws_anew():
    labeller = Probabilities({"a": 0.5, "b": 0.5})
    picture = np.zeros((30, 30, 3), dtype=np.uint8)
    flipped = [picture.copy() for _ in range(2700)]
    for n, copy in enumerate(flipped):
        copy.reshape(-1)[n] = 1
    got = names(labeller, flipped).count("a")
    assert 0.45 < got / 2700 < 0.55
    assert picture_digest(np.zeros((2, 3, 3), np.uint8)) != picture_digest(
        np.zeros((3, 2, 3), np.uint8)
    )


def test_the_certificate_is_known_beforehand():
    """At 0.6 of the true radius runs certify, at 1.02 of it at most a share alpha does."""
    chances, sigma, alpha = {"bus": 0.9, "van": 0.1}, 0.25, 0.05
    truth = Probabilities(chances).radius(sigma)
    assert truth == pytest.approx(0.25 * stats.norm.ppf(0.9))
    below = above = 0
    runs = 12
    photo = np.full((8, 8, 3), 99, dtype=np.uint8)
    for seed in range(runs):
        with Smoother(
            MockAdapter(chances, seed=seed), sigma=sigma, alpha=alpha, denoiser="none", size=8,
            max_votes=400, concurrency=2, plain=False,
        ) as smoother:  # fmt: skip
            below += smoother.certify(photo, radius=0.6 * truth).label == "bus"
            above += not smoother.certify(photo, radius=1.02 * truth).abstained
    assert below >= 0.9 * runs
    assert above <= stats.binom.ppf(0.9999, runs, alpha)


@pytest.mark.parametrize(
    ("chances", "radius"),
    [({"a": 1.0}, math.inf), ({"a": 0.5, "b": 0.5}, 0.0), ({None: 0.9, "a": 0.1}, 0.0)],
)
def test_radii_at_the_edges(chances, radius):
    assert Probabilities(chances).radius(0.5) == radius


def test_chances_are_named_for_the_store():
    ids = {
        Probabilities(chances, seed=seed, score=score).labeller_id
        for chances in ({"a": 0.5, "b": 0.5}, {"a": 0.4, "b": 0.6}, {"a": 0.5, None: 0.5})
        for seed in (0, 1)
        for score in (0.9, 0.8)
    }
    assert len(ids) == 12
    text = Probabilities.parse("school bus 97%, van 0.02, none 1%", seed=4)
    assert (
        text.labeller_id
        == Probabilities({"school bus": 0.97, "van": 0.02, None: 0.01}, seed=4).labeller_id
    )


@pytest.mark.parametrize(
    ("chances", "says"),
    [
        ({}, "in \\[0, 1\\]"),
        ({"a": 1.5, "b": -0.5}, "in \\[0, 1\\]"),
        ({"a": 0.9}, "add up to 0.9, not to 1"),
        ({"a": math.nan}, "in \\[0, 1\\]"),
    ],
)
def test_impossible_chances_are_refused(chances, says):
    with pytest.raises(UsageError, match=says):
        Probabilities(chances)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5])
def test_a_table_knows_every_noisy_copy_of_its_photos(sigma):
    table = Table({str(PHOTOS / f"{name}.jpg"): [(name, 0.8)] for name in NAMES})
    rng = np.random.default_rng(0)
    for name in NAMES:
        clean = load_image(PHOTOS / f"{name}.jpg", size=224).pixels
        noisy = np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 1)
        answer = table((noisy * 255).round().astype(np.uint8))
        assert answer.labels == (Label(name, 0.8),)


def test_a_row_with_a_digest_is_one_picture_and_goes_first():
    photo = PHOTOS / "monarch.jpg"
    plain = load_image(photo, size=224).to_uint8()
    table = Table([(photo, "butterfly"), (picture_digest(plain), "exactly this")])
    assert table(plain).labels[0].name == "exactly this"
    plain[0, 0, 0] ^= 1
    assert table(plain).labels[0].name == "butterfly"


def test_what_a_table_does_not_know():
    other = np.zeros((50, 50, 3), dtype=np.uint8)
    other[::2] = 255
    rows = {str(PHOTOS / "monarch.jpg"): "monarch"}
    with pytest.raises(PermanentError, match="no photo that looks like"):
        Table(rows, within=0.1)(other)
    assert Table(rows, within=0.1, otherwise=())(other).labels == ()
    assert Table(rows, within=0.1, otherwise="else")(other).labels[0].name == "else"
    assert Table(rows, within=1.0)(other).labels[0].name == "monarch"
    with pytest.raises(ImageError):
        Table({"nowhere.jpg": "x"})


def test_a_table_is_read_beside_its_photos_and_certifies_them(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.jpg").write_bytes((PHOTOS / f"{name}.jpg").read_bytes())
    rows = {
        "balloon.jpg": "balloon",
        "monarch.jpg": [["monarch", 0.7], ["insect", 0.6]],
        "school_bus.jpg": [],
    }
    (tmp_path / "table.json").write_text(json.dumps(rows))
    adapter = MockAdapter(f"table:{tmp_path / 'table.json'}")
    with Smoother(adapter, denoiser="none", size=64) as smoother:
        assert smoother.certify(PHOTOS / "balloon.jpg").label == "balloon"
        assert smoother.certify(PHOTOS / "monarch.jpg").label == "monarch"
        assert smoother.certify(PHOTOS / "school_bus.jpg").abstained
    toml = tmp_path / "table.toml"
    toml.write_text('"monarch.jpg" = "monarch"\n')
    assert Table.read(toml).labeller_id != Table.read(tmp_path / "table.json").labeller_id
    toml.write_text("a = ")
    with pytest.raises(UsageError, match="cannot be read"):
        Table.read(toml)


def test_recorded_answers_come_back_to_the_same_bytes(tmp_path):
    file = tmp_path / "answers.jsonl"
    photo = np.full((8, 8, 3), 99, dtype=np.uint8)
    options = {"denoiser": "none", "size": 8}
    with Smoother(MockAdapter({"bus": 0.97, None: 0.03}), record=file, **options) as smoother:
        first = smoother.certify(photo)
    recorded = MockAdapter(f"replay:{file}", faults="3x503")
    with Smoother(recorded, home=smoother.session.settings.home, **options) as smoother:
        again = smoother.certify(photo)
    assert (again.votes, again.radius, again.label) == (first.votes, first.radius, first.label)
    assert recorded.billed == first.total_votes + 1
    with pytest.raises(PermanentError, match="no answer to this picture"):
        Recorded(file).label_payload(b"another")


def test_a_recording_that_does_not_say_what_was_sent(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UsageError, match="does not say what was sent"):
        Recorded(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("uniform 0.1 0.4", stats.uniform(0.1, 0.3)),
        ("lognormal 0.2 0.5", stats.lognorm(0.5, scale=0.2)),
    ],
)
def test_latencies_are_distributed_as_they_say(text, distribution):
    latency = Latency.parse(text, seed=3)
    drawn = [latency.seconds(n) for n in range(4000)]
    assert stats.kstest(drawn, distribution.cdf).pvalue > 1e-4
    assert drawn == [Latency.parse(text, seed=3).seconds(n) for n in range(4000)]
    assert drawn != [Latency.parse(text, seed=4).seconds(n) for n in range(4000)]


def test_measured_latencies_come_as_often_as_they_were_measured(tmp_path):
    (tmp_path / "times.txt").write_text("0.1 0.1\n0.9\n")
    latency = Latency.parse(f"empirical {tmp_path / 'times.txt'}")
    drawn = [latency.seconds(n) for n in range(6000)]
    assert stats.chisquare([drawn.count(0.1), drawn.count(0.9)], [4000, 2000]).pvalue > 1e-4
    assert Latency.parse(0.5).seconds(7) == Latency.parse("0.5").seconds(1) == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        "uniform 1",
        "uniform 2 1",
        "lognormal x y",
        "empirical",
        "empirical no.txt",
        "inf",
        "gauss 1 2",
        "",
    ],
)
def test_impossible_latencies_are_refused(bad):
    with pytest.raises(UsageError, match="latency"):
        Latency.parse(bad)
