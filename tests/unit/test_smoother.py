"""The whole pipe: right certificates, the same again from the store, and clear refusals."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import (
    Absence,
    Budget,
    Certificate,
    MostSpecific,
    Presence,
    Retry,
    Scores,
    Smoother,
    TopK,
    verify,
)
from smoothapi.answer import Answer, Label
from smoothapi.errors import (
    BudgetExceededError,
    CertificateError,
    DenoiserError,
    FatalError,
    ImageError,
    ModelChangedError,
    PermanentError,
    TooManyFailuresError,
    TransientError,
    UnknownProviderError,
    UnreachableRadiusError,
    UsageError,
)
from smoothapi.provider import Limits
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import ScriptedAdapter, answer

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SHIPPED = Path(__file__).parents[2] / "examples" / "photos" / "school_bus.jpg"


def smoother(adapter, **options):
    options.setdefault("denoiser", "none")
    options.setdefault("retry", Retry(attempts=4, base=0.001, cap=0.002))
    return Smoother(adapter, **options)


def coin(p, *, yes="bus", no="van"):
    """A labeller that says `yes` for a share p of all pictures, by what they look like."""

    def labeller(picture):
        digest = hashlib.sha256(picture.tobytes()).digest()
        return yes if int.from_bytes(digest[:8], "big") < p * 2**64 else no

    return MockAdapter(labeller, labeller_id=f"coin {p} {yes} {no}")


def test_a_shipped_photo_is_certified_by_the_real_labeller_and_denoiser():
    # The small one: the default, twice as slow, certifies in the README's and the tutorial's tests.
    with Smoother("mock", sigma=0.25, denoiser="small", budget=Budget(attempts=500)) as s:
        certificate = s.certify(SHIPPED, radius=0.25)
    assert certificate.label == certificate.plain_label == "school bus"
    assert certificate.plain_agrees is True
    assert certificate.radius == 0.25
    assert certificate.radius_native > 0.25  # the resize shrinks distances
    assert certificate.queries == certificate.attempts == certificate.total_votes + 1 < 500
    assert certificate.cost == pytest.approx(certificate.queries / 1000)
    assert certificate.image.native_size == (299, 299)
    assert "digest" in verify(certificate, SHIPPED)[-1]


def test_a_second_run_is_free_and_says_the_same_without_the_denoiser():
    with smoother(coin(0.98), denoiser="default") as s:
        first = s.certify(PHOTO)
    with smoother(coin(0.98), denoiser="default") as s:
        second = s.certify(PHOTO)
        assert not s.session.variants.denoiser.loaded
    assert second == first
    assert (second.queries, second.attempts, second.cost) == (0, 0, 0.0)
    assert second.cached == first.total_votes + 1


def test_the_order_of_arrival_does_not_matter():
    certificates = []
    for concurrency in (1, 3, 16):
        with smoother(coin(0.9), concurrency=concurrency, refresh=True) as s:
            certificates.append(s.certify(PHOTO, radius=0.1))
    assert certificates[0] == certificates[1] == certificates[2]


def test_faults_do_not_change_the_certificate():
    with smoother(coin(0.95)) as s:
        calm = s.certify(PHOTO, radius=0.1)
    inner = coin(0.95)

    class Stormy(MockAdapter):
        asked: set[bytes] = set()
        lock = threading.Lock()

        def ask(self, payloads):
            with self.lock:
                first = payloads[0] not in self.asked
                self.asked.add(payloads[0])
            if first and payloads[0][-13] % 3 == 0:
                raise TransientError("busy")
            return inner.ask(payloads)

    stormy = Stormy(lambda _: "", labeller_id="coin 0.95 bus van")
    with smoother(stormy, refresh=True) as s:
        storm = s.certify(PHOTO, radius=0.1)
    assert storm == calm


def test_an_unbroken_run_buys_no_query_in_vain():
    adapter = ScriptedAdapter(delay=0.001)
    with smoother(adapter, concurrency=16) as s:
        certificate = s.certify(PHOTO, radius=0.25)
    assert adapter.sent == certificate.total_votes + 1


def test_a_wrong_label_under_noise_is_shown_beside_the_plain_one():
    plain = hashlib.sha256(PHOTO.tobytes()).digest()

    def robust_but_meaningless(picture):
        return "bus" if hashlib.sha256(picture.tobytes()).digest() == plain else "jigsaw puzzle"

    with smoother(MockAdapter(robust_but_meaningless)) as s:
        certificate = s.certify(PHOTO)
    assert certificate.label == "jigsaw puzzle"
    assert certificate.plain_label == "bus"
    assert certificate.plain_agrees is False


def test_the_plain_query_can_be_turned_off():
    adapter = ScriptedAdapter()
    with smoother(adapter, plain=False) as s:
        certificate = s.certify(PHOTO)
    assert not certificate.plain_asked
    assert certificate.plain_label is certificate.plain_agrees is None
    assert adapter.sent == certificate.total_votes


def test_an_unstable_label_is_abstained_on_with_a_reason():
    with smoother(coin(0.5)) as s:
        certificate = s.certify(PHOTO)
    assert certificate.abstained
    assert certificate.radius == certificate.radius_native == 0.0
    assert certificate.reason == "unlikely"
    assert certificate.total_votes < 100  # it gave up rather than pay on
    verify(certificate, PHOTO)


def test_no_labels_at_all_are_never_certified():
    with smoother(MockAdapter(lambda _: [])) as s:
        certificate = s.certify(PHOTO)
    assert certificate.abstained
    assert set(certificate.tally) == {None}
    verify(certificate)


def test_failed_variants_are_votes_for_no_answer():
    def script(payload, attempt):
        bad = hashlib.sha256(payload).digest()[0] < 10  # 4 in 100 of the variants, for ever
        return TransientError("busy") if bad else answer()

    with smoother(ScriptedAdapter(script), plain=False) as s:
        certificate = s.certify(PHOTO, radius=0.1)
    assert certificate.failed == certificate.tally.get(None, 0) > 0
    assert certificate.label == "bus"
    assert certificate.attempts > certificate.queries
    verify(certificate)


def test_the_largest_radius():
    with smoother(ScriptedAdapter(), max_votes=200) as s:
        certificate = s.certify(PHOTO, radius="largest")
    assert certificate.radius_requested is None
    assert 0.3 < certificate.radius < 1.0
    assert certificate.total_votes == 200
    verify(certificate)


def test_predict_gives_a_label_and_no_radius():
    with smoother(coin(0.8)) as s:
        certificate = s.predict(PHOTO)
    assert certificate.kind == "predict"
    assert certificate.label == "bus"
    assert certificate.radius == certificate.radius_native == 0.0
    verify(certificate, PHOTO)


def test_a_label_space_joins_what_the_provider_tells_apart():
    def script(payload, attempt):
        names = ("School Bus", "Coach") if payload[-13] % 2 else ("coach", "Tree")
        return Answer(tuple(Label(name, 0.9) for name in names))

    with smoother(ScriptedAdapter(script), classes={"bus": ["school bus", "Coach"]}) as s:
        certificate = s.certify(PHOTO)
    assert certificate.label == certificate.plain_label == "bus"
    with smoother(ScriptedAdapter(script)) as s:
        assert s.certify(PHOTO).target != certificate.target


def test_a_change_of_model_gives_no_certificate_and_refresh_mends_it():
    def script(payload, attempt):
        return answer(version="v1" if len(adapter.attempts) < 10 else "v2")

    adapter = ScriptedAdapter(script)
    with smoother(adapter, concurrency=1) as s, pytest.raises(ModelChangedError, match="refresh"):
        s.certify(PHOTO)
    with smoother(ScriptedAdapter(lambda *_: answer(version="v2")), refresh=True) as s:
        assert s.certify(PHOTO).model_version == "v2"


def test_the_budget_refuses_before_the_first_query():
    adapter = ScriptedAdapter()
    with smoother(adapter, budget=Budget(attempts=20)) as s:
        with pytest.raises(BudgetExceededError, match="Nothing was sent"):
            s.certify(PHOTO)
    assert adapter.sent == 0


def test_the_budget_is_one_for_all_photos_of_a_smoother():
    adapter = ScriptedAdapter()
    with smoother(adapter, budget="$0.09") as s:
        s.certify(PHOTO)
        with pytest.raises(BudgetExceededError):
            s.certify(PHOTO[::-1].copy())
    assert adapter.sent <= 90


def test_a_run_that_is_cut_off_again_and_again_ends_with_the_same_certificate():
    with smoother(coin(0.93)) as s:
        whole = s.certify(PHOTO, radius=0.1)
    other = Path("elsewhere")
    other.mkdir()
    (other / "noise.key").write_bytes((s.session.settings.home / "noise.key").read_bytes())
    (other / "noise.key").chmod(0o600)
    spent = 0
    while True:
        with smoother(coin(0.93), home=other, budget=Budget(attempts=15), partial=True) as s:
            try:
                resumed = s.certify(PHOTO, radius=0.1)
            except BudgetExceededError as error:
                spent += error.attempts
            else:
                spent += resumed.attempts
                break
    assert resumed == whole
    assert spent == whole.total_votes + 1


def test_fatal_errors_pass_through_with_what_was_spent():
    adapter = ScriptedAdapter(lambda *_: FatalError("bad key"))
    with smoother(adapter) as s, pytest.raises(FatalError) as caught:
        s.certify(PHOTO)
    assert caught.value.attempts == adapter.sent == 1


def test_small_pictures_are_enlarged_for_the_provider():
    seen = []
    adapter = MockAdapter(
        lambda picture: seen.append(picture.shape) or "x", limits=Limits(min_side=80)
    )
    with smoother(adapter) as s:
        certificate = s.certify(PHOTO)
    assert certificate.image.size == (32, 24)
    assert set(seen) == {(80, 107, 3)}


def test_progress_tells_how_far_it_is():
    states = []
    with smoother(ScriptedAdapter()) as s:
        certificate = s.certify(PHOTO, on_progress=states.append)
    assert [state.votes for state in states] == list(range(1, certificate.total_votes + 1))
    assert states[-1].needed == 0
    assert states[0].needed == certificate.total_votes - 1
    assert states[-1].queries == certificate.queries


def test_a_plan_sends_nothing_and_is_kept_to():
    adapter = ScriptedAdapter()
    with smoother(adapter) as s:
        plan = s.plan(PHOTO)
        assert adapter.sent == 0
        certificate = s.certify(PHOTO)
        assert plan.at_least == certificate.queries
        after = s.plan(PHOTO)
    assert (after.at_least, after.stored) == (0, certificate.total_votes)
    assert plan.at_most == 1001
    assert [p for p, _ in plan.expected] == sorted((p for p, _ in plan.expected), reverse=True)
    assert all(plan.at_least - 1 <= mean <= plan.at_most for _, mean in plan.expected)


def test_threads_share_a_smoother():
    photos = [np.roll(PHOTO, shift, axis=0) for shift in range(6)]
    with smoother(coin(0.97)) as s:
        alone = [s.certify(photo) for photo in photos]
    results = {}
    with smoother(coin(0.97), refresh=True) as s:
        threads = [
            threading.Thread(target=lambda i=i: results.update({i: s.certify(photos[i])}))
            for i in range(len(photos))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [results[i] for i in range(len(photos))] == alone


def test_closing_closes_the_adapter():
    adapter = ScriptedAdapter()
    with smoother(adapter):
        pass
    assert adapter.closed


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"sigma": 0}, UsageError, "sigma"),
        ({"alpha": 1}, UsageError, "alpha"),
        ({"radius": -1}, UsageError, "radius"),
        ({"radius": "big"}, UsageError, "radius"),
        ({"max_votes": 0}, UsageError, "max_votes"),
        ({"budget": "lots"}, UsageError, "budget"),
        ({"codec": "webp"}, UsageError, "codec"),
        ({"device": "gpu0"}, DenoiserError, "gpu0"),
        ({"denoiser": "missing.safetensors"}, DenoiserError, "missing"),
        ({"provider": "nobody"}, UnknownProviderError, "nobody"),
        ({"provider": 7}, UsageError, "adapter"),
        ({"classes": {"a": []}}, UsageError, "label"),
        ({"classes": [("a", ["b"])]}, UsageError, "classes is a mapping"),
    ],
)
def test_bad_options_are_refused_before_anything_is_sent(options, error, complaint):
    options = {"provider": "mock", **options}
    with pytest.raises(error, match=complaint):
        Smoother(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"photo": np.zeros((5, 5), np.uint8)}, ImageError, "shape"),
        ({"photo": PHOTO, "radius": 0.9}, UnreachableRadiusError, "at least"),
        ({"photo": PHOTO, "radius": 9.0}, UnreachableRadiusError, "radius"),
        ({"photo": PHOTO, "radius": 0.0}, UsageError, "radius"),
        ({"photo": PHOTO, "radius": float("nan")}, UsageError, "radius"),
        ({"photo": PHOTO, "radius": "wide"}, UsageError, "largest"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_sent(arguments, error, complaint):
    adapter = ScriptedAdapter()
    with smoother(adapter) as s, pytest.raises(error, match=complaint):
        s.certify(**arguments)
    assert adapter.sent == 0


def test_the_photo_of_another_certificate_is_noticed():
    with smoother(ScriptedAdapter()) as s:
        certificate = s.certify(PHOTO)
    with pytest.raises(CertificateError, match="another photo"):
        verify(certificate, PHOTO[:, ::-1].copy())


def test_a_rotated_photo_is_verified_as_its_upright_self(tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(PHOTO)).save(path, exif=exif)
    with smoother(ScriptedAdapter()) as s:
        certificate = s.certify(path)
    verify(certificate, PHOTO)
    assert certificate.image.notes


# What a hostile review found.


def test_two_denoisers_that_differ_in_a_plain_attribute_share_no_answers():
    import torch

    class Paint(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, noisy):
            return noisy * 0 + self.value

    adapter = MockAdapter(lambda p: "bright" if p.mean() > 127 else "dark", labeller_id="light")
    labels = []
    for value in (1.0, 0.0):
        with smoother(adapter, denoiser=Paint(value)) as s:
            labels.append(s.certify(PHOTO).label)
    assert labels == ["bright", "dark"]


def test_a_native_radius_for_another_size_of_photo_is_refused_with_the_photo_at_hand():
    from dataclasses import replace

    from smoothapi.certify import native_radius
    from smoothapi.image import resize_norm

    photo = np.repeat(np.repeat(PHOTO, 10, axis=0), 10, axis=1)
    with smoother(ScriptedAdapter(), size=24) as s:
        certificate = s.certify(photo)
    gain = resize_norm(3200, 32) * resize_norm(2400, 24)
    forged = replace(
        certificate,
        image=replace(certificate.image, native_size=(3200, 2400), gain=gain),
        radius_native=native_radius(certificate.radius, gain, certificate.rounding),
    )
    verify(certificate, photo)
    with pytest.raises(CertificateError, match="native radius does not hold"):
        verify(forged, photo)


def test_a_plain_answer_of_an_earlier_model_is_asked_again():
    old = ScriptedAdapter(lambda *_: answer("cat", version="v1"))
    with smoother(old, budget=Budget(attempts=60)) as s:
        s.certify(PHOTO)
    key = next(iter(old.attempts))  # the plain query is the first
    new = ScriptedAdapter(lambda *_: answer("dog", version="v2"))
    with smoother(new, sigma=0.5) as s:  # other variants, the same plain query
        certificate = s.certify(PHOTO)
    assert new.attempts[key] == 1
    assert (certificate.plain_label, certificate.model_version) == ("dog", "v2")
    assert certificate.plain_agrees is True


def test_what_was_opened_is_closed_when_the_rest_cannot_be():
    adapter = ScriptedAdapter()
    with pytest.raises(UsageError, match="Cannot read the budget"):
        Smoother(adapter, denoiser="none", budget="-3")
    assert adapter.closed


def test_an_outage_is_an_error_and_no_abstention():
    adapter = ScriptedAdapter(lambda *_: PermanentError("unreadable"))
    with (
        smoother(adapter, concurrency=2) as s,
        pytest.raises(TooManyFailuresError, match="unreadable") as caught,
    ):
        s.certify(PHOTO)
    # While the first is under way, a run may ask about as many as could be needed: a certificate.
    assert caught.value.attempts == adapter.sent < 60


@pytest.mark.parametrize(
    "returned",
    [
        lambda: [Answer((Label("bus", np.float32(0.5)),))],
        lambda: [Answer([Label("bus", np.float64(0.5))])],
    ],
)
def test_scores_from_numpy_are_kept(returned):
    class Numpy(ScriptedAdapter):
        def ask(self, payloads):
            return returned()

    with smoother(Numpy()) as s:
        assert s.certify(PHOTO).label == "bus"


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: Answer(("bus",)),
        lambda: Answer((Label(5, 0.9),)),
        lambda: Answer((Label("bus", "0.9"),)),
        lambda: Answer((Label("bus", 0.9),), model_version=None),
        lambda: TransientError("later", retry_after="soon"),
    ],
)
def test_mistakes_of_an_adapter_are_named_as_such_at_the_first_query(mistake):
    adapter = ScriptedAdapter(lambda *_: mistake())
    with smoother(adapter) as s, pytest.raises(FatalError, match="defect of the adapter"):
        s.certify(PHOTO)
    assert adapter.sent == 1


def test_threads_that_share_a_smoother_do_not_buy_a_variant_twice():
    adapter = ScriptedAdapter(delay=0.005)
    certificates = []
    with smoother(adapter) as s:
        threads = [
            threading.Thread(target=lambda: certificates.append(s.certify(PHOTO))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(certificates)) == 1
    assert set(adapter.attempts.values()) == {1}


def test_what_the_provider_would_refuse_is_not_sent():
    adapter = ScriptedAdapter()
    for limits in (Limits(max_side=20), Limits(max_bytes=100)):
        adapter.limits = limits
        with smoother(adapter) as s, pytest.raises(UsageError, match="takes up to"):
            s.certify(PHOTO)
    assert adapter.sent == 0


def test_queries_counted_are_queries_sent_when_it_abstains():
    for seed in range(4):
        adapter = ScriptedAdapter(lambda p, n: answer("bus" if p[-13] % 2 else "van"), delay=0.002)
        with smoother(adapter, concurrency=8) as s:
            certificate = s.certify(np.roll(PHOTO, seed, axis=1))
        assert certificate.abstained
        assert certificate.queries == certificate.attempts == adapter.sent


def test_a_failed_plain_query_is_no_failed_vote_and_no_disagreement():
    adapter = ScriptedAdapter(lambda p, n: PermanentError("x") if not seen(p) else answer())
    first = []

    def seen(payload):
        first.append(payload)
        return first[0] != payload

    with smoother(adapter, concurrency=1) as s:
        certificate = s.certify(PHOTO)
    assert certificate.failed == 0
    assert certificate.plain_label is certificate.plain_agrees is None


def test_a_plan_knows_a_decision_that_is_stored():
    with smoother(coin(0.5)) as s:
        s.certify(PHOTO)
        plan = s.plan(PHOTO)
    assert (plan.at_least, plan.at_most) == (0, 0)


def test_a_closed_smoother_says_so():
    with smoother(ScriptedAdapter()) as s:
        pass
    with pytest.raises(UsageError, match="closed"):
        s.certify(PHOTO)
    s.close()


@pytest.mark.parametrize("budget", [500, 2.5, [5]])
def test_a_budget_that_is_a_bare_number_is_refused_in_words(budget):
    with pytest.raises(UsageError, match="Budget"):
        smoother(ScriptedAdapter(), budget=budget)


def test_what_is_printed_is_never_more_than_what_is_claimed():
    from dataclasses import replace

    with smoother(ScriptedAdapter()) as s:
        certificate = s.certify(PHOTO)
    shown = str(replace(certificate, radius=0.2499999999, radius_native=1.317947, alpha=1e-9))
    assert "radius 0.249999 " in shown
    assert "native 1.317947" in shown
    assert "99.999999%" in shown


def test_labels_cannot_forge_lines_or_steer_a_terminal():
    with smoother(ScriptedAdapter(lambda *_: answer("x\x1b[2J\ncertified: y"))) as s:
        shown = str(s.certify(PHOTO))
    assert "\x1b" not in shown
    assert "\n" not in shown


# Other targets, out of the same answers.


def animals(payload, attempt):
    """Sure of Bird; of Vulture only for seven in eight pictures; a weapon never."""
    sure = 0.95 if payload[-13] % 8 else 0.3
    return Answer(
        (
            Label("Vulture", sure, ("Bird", "Animal")),
            Label("Bird", 0.99, ("Animal",)),
            Label("Animal", 0.99),
        ),
        "v1",
    )


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (Presence("Bird", 0.8), "Bird present"),
        (Absence("Weapon", 0.8), "Weapon absent"),
        (Presence(["Bird", "Weapon"], 0.8), "Bird present, Weapon absent"),
        (Scores("bird", 0.8), "bird at least 0.99"),
        (Scores(["Bird", "Animal"], 0.8), "Bird at least 0.99, Animal at least 0.99"),
        (TopK(2), None),
        (MostSpecific(0.8), None),
    ],
)
def test_every_target_is_certified_and_verified(target, label):
    with smoother(ScriptedAdapter(animals)) as s:
        certificate = s.certify(PHOTO, radius=0.2, target=target)
    assert not certificate.abstained
    if label:
        assert certificate.label == label
        assert certificate.plain_agrees is True
    assert certificate.claims
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    verify(again, PHOTO)


def test_one_set_of_answers_serves_all_targets():
    adapter = ScriptedAdapter(animals)
    with smoother(adapter) as s:
        s.certify(PHOTO, radius=0.25, target=Presence("Bird", 0.8))
        sent = adapter.sent
        s.certify(PHOTO, radius=0.25, target=Absence("Weapon", 0.8))
    assert adapter.sent == sent


def test_a_forged_score_is_refused():
    from dataclasses import replace

    with smoother(ScriptedAdapter(animals)) as s:
        certificate = s.certify(PHOTO, radius=0.2, target=Scores("Bird", 0.8))
    claim = certificate.claims[0]
    for forged in (
        replace(certificate, claims=(replace(claim, score=0.995),)),
        replace(certificate, claims=(replace(claim, score=0.9),)),
        replace(certificate, claims=(replace(claim, relation="present"),)),
        replace(certificate, target={**certificate.target, "least": 0.7}),
        replace(certificate, target={**certificate.target, "labels": ["Weapon"]}),
        replace(
            certificate,
            label="Weapon at least 0.99",
            claims=(replace(claim, label="Weapon"),),
            target={**certificate.target, "labels": ["Weapon"]},
        ),
    ):
        with pytest.raises(CertificateError):
            verify(forged)


def test_a_forged_claim_is_refused():
    from dataclasses import replace

    with smoother(ScriptedAdapter(animals)) as s:
        certificate = s.certify(PHOTO, radius=0.2, target=Presence("Bird", 0.8))
    claim = replace(certificate.claims[0], label="Weapon")
    other = {**certificate.target, "labels": ["Weapon"]}
    for forged in (
        replace(certificate, claims=(claim,)),
        replace(certificate, claims=()),
        replace(certificate, target=other),
        replace(certificate, target={**certificate.target, "score": 0.7}),
        replace(certificate, target={"target": "nonsense"}),
        replace(certificate, votes=(("not json", certificate.total_votes),)),
    ):
        with pytest.raises((CertificateError, UsageError)):
            verify(forged)


def test_a_target_with_a_label_space_of_its_own_verifies():
    from smoothapi import LabelSpace
    from smoothapi.certify import Top1

    space = LabelSpace({"b": ["Vulture", "Bird"], "x": ["Animal"]})
    with smoother(ScriptedAdapter(animals)) as s:
        certificate = s.certify(PHOTO, radius=0.2, target=Top1(space))
    assert certificate.label in ("b", "x")
    assert certificate.plain_agrees == (certificate.plain_label == certificate.label)
    verify(certificate, PHOTO)


def test_a_plan_refuses_nothing_that_can_be_done():
    with smoother(ScriptedAdapter(), max_votes=150) as s:
        plan = s.plan(PHOTO, 0.5, target=TopK(3))
        assert plan.expected == ()
        assert s.certify(PHOTO, 0.5, target=TopK(3)).label


def test_variants_too_large_as_png_are_sent_as_jpeg_and_the_certificate_says_so():
    """Each variant by its own bytes; the votes are those of one function, stored under its name."""
    seen = []

    class Watched(MockAdapter):
        def ask(self, payloads):
            seen.extend((payload[:4], len(payload)) for payload in payloads)
            return super().ask(payloads)

    def labeller(pixels):
        return "bright" if pixels.mean() > 127 else "dark"

    photo = np.full((64, 64, 3), 128, dtype=np.uint8)

    def run(max_bytes):
        seen.clear()
        limits = Limits(batch=1, max_bytes=max_bytes)
        adapter = Watched(labeller, labeller_id="brightness", limits=limits)
        options = {"sigma": 0.05, "radius": "largest", "max_votes": 40, "plain": False}
        with smoother(adapter, size=(64, 64), **options) as one:
            return one.certify(photo)

    png = run(10**6)
    sizes = sorted(size for _, size in seen)
    assert png.codec == "png/1"
    middle = sizes[len(sizes) // 2]
    mixed = run(middle)
    kinds = {kind for kind, _ in seen}
    assert len(kinds) == 2
    assert max(size for _, size in seen) <= middle
    assert mixed.codec.startswith(f"png/1+jpeg-above-{middle}+")
    assert mixed.queries == mixed.attempts > 0  # nothing of the other function's was used
    verify(mixed, photo)
    again = run(middle)
    assert again.queries == 0
    assert again.votes == mixed.votes
    with pytest.raises(UsageError, match="smaller working size"):
        run(50)
