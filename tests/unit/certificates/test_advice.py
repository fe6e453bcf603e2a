"""What an abstention says: how near it was, what is certified all the same, what to try."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi import Absence, MostSpecific, Presence, Scores, advise
from smoothapi.advice import _planned
from smoothapi.answer import Answer, Label
from smoothapi.certify import queries_needed, runs_of
from smoothapi.certify.certificate import percent
from smoothapi.certify.sequential import needed_share
from smoothapi.cli.output import show_certificate
from smoothapi.dispatch import shared
from smoothapi.dispatch.shared import Workers
from smoothapi.smoother import Smoother
from tests.conftest import ScriptedAdapter, answer

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(autouse=True, scope="module")
def _in_order():
    """Variants are asked about one by one in their order: answers by turns are votes by turns."""
    start = Workers.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "start", lambda *given: replace(start(*given), threads=1))
        patch.setattr(shared, "_PREPARERS", 1)
        yield


def certificate(share, radius=0.25, turns=10**6, target=None, **options):
    """Certify with a provider of which `share` in 100 answers, evenly spread, say "bus".

    From the answer `turns` on none does.
    """
    asked = iter(range(10**6))

    def script(payload, attempt):
        index = next(asked)
        if index >= turns:
            return answer("van")
        return answer("bus" if index * share // 100 != (index + 1) * share // 100 else "van")

    return certified(script, radius, target, **options)


def certified(script, radius, target, **options):
    adapter = ScriptedAdapter(script)
    options = {"sigma": 0.25, "plain": False, "max_votes": 300, **options}
    with Smoother(adapter, denoiser="none", radius=radius, concurrency=1, **options) as smoother:
        return smoother.certify(PHOTO, target=target or "top1"), smoother.session.price


def several(script, radius, target, **options):
    """Certify with answers of the labels that `script` names for an index."""
    asked = iter(range(10**6))

    def answered(payload, attempt):
        labels = tuple(Label(name, 0.9) for name in script(next(asked)))
        return Answer(labels=labels, model_version="v1")

    return certified(answered, radius, target, **options)


def test_a_certificate_and_a_prediction_need_none():
    given, _ = certificate(100)
    assert not given.abstained
    assert advise(given) is None


def test_an_abstention_says_the_share_and_what_is_certified_all_the_same(capsys):
    given, price = certificate(80)
    assert given.abstained
    advice = advise(given, price)
    assert advice.leader == "bus"
    assert advice.share == pytest.approx(given.tally["bus"] / given.total_votes)
    assert [radius for _, radius in advice.certified] == [c.radius for c in given.largest]
    assert advice.share < advice.needed_share
    assert advice.limit < 0.25
    show_certificate(given, price)
    shown = capsys.readouterr().out
    for part in ("what now", "bus leads with", "no number of votes certifies more"):
        assert part in " ".join(shown.split())
    assert "bus leads with" in str(given)
    assert json.loads(json.dumps(advice.to_dict()))["leader"] == "bus"


def test_a_lower_radius_from_the_same_votes_is_named_and_costs_nothing():
    given, price = certificate(100, radius=0.4, turns=60)  # and then none is for it
    assert given.abstained
    [(label, radius)] = advise(given, price).certified
    assert label == "bus"
    assert 0.0 < radius < 0.4
    assert f"--radius {radius:.6f}".rstrip("0") in str(advise(given, price)).replace(")", " ")


def test_a_larger_cap_is_advised_where_it_would_probably_do_and_says_what_it_costs():
    given, price = certificate(95, radius=0.25, max_votes=70)
    assert given.abstained
    advice = advise(given, price)
    [trial] = [t for t in advice.trials if t.change == "max_votes"]
    count = queries_needed(
        0.25, 0.25, given.alpha, advice.share, max_votes=int(trial.value), delta=given.delta
    )
    assert count.certified - 0.05 <= trial.certified <= count.certified  # planned for a bit less
    assert trial.certified >= 0.5
    assert trial.votes == pytest.approx(count.mean, rel=0.05)
    new = max(0, round(trial.votes) - given.total_votes)
    assert trial.dollars == pytest.approx(new / 1000)


def test_a_larger_sigma_is_advised_for_all_photos_only():
    given, price = certificate(80, radius=0.25)
    advice = advise(given, price)
    [trial] = [t for t in advice.trials if t.change == "sigma"]
    assert trial.value > given.sigma
    assert trial.needed_share < advice.share
    assert "for all photos and not for this one alone" in str(advice)


@pytest.mark.parametrize(
    ("share", "options"),
    [(80, {}), (95, {"max_votes": 70}), (100, {"radius": 0.4, "turns": 60}), (50, {})],
)
def test_after_a_final_abstention_nothing_is_advised_that_final_rules_out(share, options):
    given, price = certificate(share, final=True, **options)
    assert given.abstained
    advice = advise(given, price)
    assert advice.trials == ()
    said = str(advice)
    assert "--max-votes" not in said
    assert "--sigma" not in said
    assert " --radius" not in said.replace("(", " ")
    assert "no more votes and at no other radius" in said
    for claim in given.largest:
        assert f"--accept-radius {claim.radius:.6f}".rstrip("0") in said
    assert json.loads(json.dumps(advice.to_dict()))["final"] is True


def test_photos_with_nearly_the_same_share_are_planned_for_once():
    """Abstentions among many photos must not cost more than the photos."""
    given, price = certificate(95, radius=0.25, max_votes=70)
    advise(given, price)
    before = _planned.cache_info().misses
    for delta in (given.delta, given.delta * (1.0 - 1e-9)):
        assert advise(replace(given, delta=delta), price).trials
    assert _planned.cache_info().misses == before


NAMED = {
    "present": (Presence("bus", 0.5), "bus present"),
    "absent": (Absence("van", 0.5), "van absent"),
    "whichever": (Presence("van", 0.5), "van absent"),
    "scores": (Scores("bus"), "bus at least 0.5"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_label_asked_for_by_name_is_advised_on_as_one_that_leads(kind, capsys):
    target, words = NAMED[kind]

    def nineteen_in_twenty(index):
        return ["bus"] if (index + 1) % 20 else ["van"]

    given, price = several(nineteen_in_twenty, 0.25, target, max_votes=70)
    assert given.abstained
    advice = advise(given, price)
    [label] = advice.labels
    assert advice.share == label.share == 1 - (given.total_votes // 20) / given.total_votes
    assert advice.needed_share == needed_share(0.25, 0.25, given.delta)
    assert [radius for _, radius in advice.certified] == [c.radius for c in given.largest]
    [trial] = [t for t in advice.trials if t.change == "max_votes"]
    count = queries_needed(
        0.25, 0.25, given.alpha, advice.share, max_votes=int(trial.value), delta=given.delta
    )
    assert trial.votes == pytest.approx(count.mean, rel=0.05)
    assert trial.dollars == pytest.approx((round(trial.votes) - given.total_votes) / 1000)
    show_certificate(given, price)
    shown = " ".join(capsys.readouterr().out.split())
    said = f"{words} in {percent(label.share)} of {given.total_votes} votes"
    for part in (f"what now {said}; the radius takes more than", "try --max-votes", "try --sigma"):
        assert part in shown
    assert said in str(given)
    [row] = json.loads(json.dumps(advice.to_dict()))["labels"]
    assert row["label"] == words.split()[0]
    assert row["relation"] in words


def test_a_lower_radius_of_a_label_asked_for_by_name_costs_nothing():
    given, price = certificate(100, radius=0.4, turns=60, target=Presence("bus", 0.5))
    [(what, radius)] = advise(given, price).certified
    assert what == "bus present"
    assert f"(--radius {radius:.6f}".rstrip("0") in str(advise(given, price))


def one_is_certified(index):
    return ["bus", *(["van"] if index % 20 else [])]


def test_of_several_labels_those_that_are_not_certified_are_advised_on():
    labels = Presence(["bus", "van"], 0.5, wanted="present")
    given, price = several(one_is_certified, 0.3, labels, max_votes=100)
    assert given.label == "bus present"
    advice = advise(given, price)
    assert [(one.label, one.relation) for one in advice.labels] == [("van", "present")]
    assert all("bus" not in what for what, _ in advice.certified)
    assert "bus" not in str(advice)
    [trial] = [t for t in advice.trials if t.change == "max_votes"]
    count = queries_needed(
        0.3, 0.25, given.alpha / 2, advice.share, max_votes=int(trial.value), delta=given.delta
    )
    assert trial.votes == pytest.approx(count.mean, rel=0.05)


def both_at_less(index):
    return ["bus", "van"] if index < 60 else []


def one_at_less(index):
    return ["bus", *(["van"] if index % 2 else [])] if index < 60 else []


@pytest.mark.parametrize(("script", "asks"), [(both_at_less, True), (one_at_less, False)])
def test_nothing_more_is_sent_is_said_only_where_it_is_so(script, asks):
    labels = Presence(["bus", "van"], 0.5, wanted="present")
    given, price = several(script, 0.4, labels)
    assert given.abstained
    advice = advise(given, price)
    assert ("nothing more is sent" in str(advice)) == asks
    least = min(radius for _, radius in advice.certified)
    again, _ = several(script, least, labels)
    assert len(again.claims) == (2 if asks else 1)
    assert again.queries == 0 or not asks


def test_of_many_labels_a_few_are_shown():
    names = [f"label {number}" for number in range(12)]
    given, price = several(lambda i: names if i % 2 else [], 0.25, Presence(names, 0.5))
    assert given.abstained
    lines = list(advise(given, price).lines())
    assert len(advise(given, price).labels) == 12
    assert sum("votes;" in line for line in lines) == 5
    assert any("7 other labels" in line for line in lines)


def test_nothing_is_advised_where_no_label_leads():
    given, price = several(lambda i: [("bus", "van", "car")[i % 3]], 0.25, None)
    advice = advise(given, price)
    assert advice.trials == ()
    assert advice.limit == 0.0


@pytest.fixture(scope="module")
def abstention(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOOTHAPI_HOME", str(tmp_path_factory.mktemp("home")))
        return certificate(80)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(st.tuples(st.sampled_from(["bus", "van", None]), st.integers(1, 40)), max_size=4),
    radius=st.sampled_from([None, 0.05, 0.25, 0.4]),
)
def test_advice_is_there_for_whatever_votes(abstention, runs, radius):
    given, price = abstention
    votes = runs_of(label for label, length in runs for _ in range(length))
    advice = advise(replace(given, votes=votes, radius_requested=radius, largest=()), price)
    assert advice.certified == ()
    assert 0.0 <= advice.share <= 1.0
    assert all(trial.certified >= 0.5 and trial.dollars >= 0.0 for trial in advice.trials)
    assert all(line.isprintable() for line in advice.lines())


def test_where_labels_are_chosen_by_the_radius_a_smaller_one_is_not_said_to_be_out_of_reach():
    made, _ = certificate(80, target=MostSpecific(0.5), max_votes=200)
    assert made.abstained
    said = str(advise(made))
    assert "at no radius" not in said
    assert "asking for one (--radius): what is stored is used before" in said
    assert certificate(80, 0.032, target=MostSpecific(0.5), max_votes=200)[0].label == "bus"
