"""What would make a study look better, or worse, than it is."""

from __future__ import annotations

import numpy as np

from smoothapi.certify import TopK
from smoothapi.errors import PermanentError
from smoothapi.study.figures import figures
from smoothapi_adapters.mock import MockAdapter


def grey(brightness, number):
    return np.full((16, 16, 3), brightness + number, np.uint8)


def test_photos_that_the_service_fails_on_under_noise_are_counted(make):
    """Else the share would be of those photos that it can answer."""

    def refuses_noise_on_bright_ones(pixels):
        if pixels.mean() > 130 and pixels.std() > 8:
            raise PermanentError("The picture cannot be read.")
        return [("dark", 0.9)]

    photos = {f"dark {n}": grey(90, n) for n in range(16)}
    photos |= {f"bright {n}": grey(160, n) for n in range(4)}
    study = make(photos, adapter=MockAdapter(refuses_noise_on_bright_ones), sigmas=0.12, caps=80)
    result = study.run()
    assert {problem.photo for problem in result.problems} == {f"bright {n}" for n in range(4)}
    for figure in figures(result):
        assert figure.photos == 20
        if not figure.estimated:
            assert figure.certified.share == figure.agreeing.share == 0.8
            assert figure.undecided + sum(figure.abstained.values()) >= 4
        else:
            assert figure.certified.share < 0.82


def test_where_no_answer_can_agree_certificates_are_what_counts(make):
    """One answer has one first place: it says nothing about the best two."""
    study = make(
        {f"{n}": grey(90, n) for n in range(4)},
        adapter=MockAdapter(lambda _: [("dark", 0.9)]),
        sigmas=0.12,
        target=TopK(2),
    )
    result = study.run()
    assert {o.agrees for cell in result.cells for o in cell.outcomes} == {None}
    for figure in figures(result):
        assert figure.certified.share == 1.0
        assert not figure.compared
        assert figure.queries_per_success == figure.queries_per_certified
