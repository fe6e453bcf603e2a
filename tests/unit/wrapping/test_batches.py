"""Several pictures in one call: under way at once, and one call in budget, error and order."""

from __future__ import annotations

import contextvars
import threading

import pytest

from smoothapi import Budget, ImageError, certificate_of, finding_of, verify, wrap
from smoothapi.services import serve
from smoothapi.wrapping import certifier as certifier_module
from tests.unit.wrapping.conftest import FAST, KITS, PIXELS, digest, labeller, png

KIT = KITS["google"]
LABELS = [{"type_": 4}]
PHOTOS = [png(PIXELS[:, :width]) for width in (100, 96, 92, 88)]

pytestmark = pytest.mark.timeout(60)


def ask(client, photos):
    requests = [{"image": {"content": photo}, "features": LABELS} for photo in photos]
    return client.batch_annotate_images(requests=requests)


@pytest.fixture
def labelled():
    """Return what labels photos by a labeller, and gives the responses and what was received."""

    def label(backend, *batches, **options):
        with serve(KIT.service, backend) as service, KIT.client(service) as plain:
            client = wrap(plain, **{**FAST, "budget": Budget(), **options})
            responses = [ask(client, photos) for photos in batches]
            client.close()
            return responses, sum(received.pictures for received in service.received)

    return label


class Together:
    """A labeller that answers about copies only once it has met those of several photos."""

    def __init__(self, photos):
        self._missing = photos
        self._lock, self._met = threading.Lock(), threading.Event()
        self._seen = set()
        self.alone = False
        self._plain = {digest(PIXELS[:, :width]) for width in (100, 96, 92, 88)}

    def __call__(self, pixels):
        if digest(pixels) in self._plain:
            return labeller(pixels)
        with self._lock:
            self._seen.add(pixels.shape)
            if len(self._seen) >= self._missing:
                self._met.set()
        self.alone |= not self._met.wait(40)
        return labeller(pixels)


def test_pictures_are_under_way_at_once_and_keep_their_order(labelled):
    together = Together(3)
    [response], _ = labelled(together, PHOTOS[:3], concurrency=9, max_votes=20, alpha=0.2)
    assert not together.alone
    for part, photo in zip(response.responses, PHOTOS[:3], strict=True):
        assert verify(certificate_of(part), photo)


def test_they_are_certified_one_after_another_where_the_budget_may_not_pay_for_all(labelled):
    """What it pays for is whole certificates, and not a part of each."""
    seen = []

    def backend(pixels):
        seen.append(pixels.shape)
        return labeller(pixels)

    options = {"budget": Budget(attempts=2 * 61 - 1), "otherwise": "plain"}
    [response], pictures = labelled(backend, PHOTOS, **options)
    findings = [finding_of(response, number) for number in range(4)]
    assert findings[0].certified
    assert pictures <= 2 * 61 - 1 + sum(finding.ended == "budget" for finding in findings)
    votes = [shape for shape in seen if seen.count(shape) > 1]
    assert votes == sorted(votes, key=seen.index)  # no picture's are among another's


def test_a_picture_twice_in_a_batch_is_paid_for_once(labelled):
    [response, alone], pictures = labelled(labeller, [PHOTOS[0]] * 4, [PHOTOS[0]])
    votes = certificate_of(alone).cached  # its own call is made anew
    certificates = [certificate_of(response, number) for number in range(4)]
    assert {certificate.claims for certificate in certificates} == {certificate_of(alone).claims}
    assert pictures == votes + 5
    assert sum(certificate.attempts for certificate in certificates) == votes + 4


def test_what_ends_one_picture_ends_those_under_way(labelled, monkeypatch):
    """Without a wait for the votes of those before it, which nobody will see."""
    begun = threading.Event()

    def load(photo, **options):
        if photo == PHOTOS[3]:
            begun.wait(30)
            raise ImageError("no")
        return loaded(photo, **options)

    def backend(pixels):
        begun.set()
        return labeller(pixels)

    loaded = certifier_module.load_image
    monkeypatch.setattr(certifier_module, "load_image", load)
    counted = []

    def counting(pixels):
        counted.append(1)
        return backend(pixels)

    with pytest.raises(ImageError):
        labelled(counting, PHOTOS, max_votes=2000, radius=0.6)
    assert len(counted) < 1000  # each would take 900 and more


def test_each_picture_has_the_context_of_the_call(labelled, monkeypatch):
    """A span of telemetry, say, is the caller's, in whichever thread the picture is certified."""
    variable = contextvars.ContextVar("variable", default="")
    seen = []

    def load(photo, **options):
        seen.append(variable.get())
        variable.set("a picture's own")
        return loaded(photo, **options)

    loaded = certifier_module.load_image
    monkeypatch.setattr(certifier_module, "load_image", load)
    variable.set("the caller's")
    labelled(labeller, PHOTOS, max_votes=10, alpha=0.3)
    assert seen == ["the caller's"] * 4
    assert variable.get() == "the caller's"
