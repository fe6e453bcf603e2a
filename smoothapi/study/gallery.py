"""A few photos of a study to look at, small."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from smoothapi.errors import SmoothAPIError
from smoothapi.look import small_picture
from smoothapi.study.findings import GalleryPhoto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smoothapi.image import WorkingImage
    from smoothapi.session import Session
    from smoothapi.study.findings import Cell, Findings


def make_pictures(
    result: Findings,
    count: int,
    loaders: Mapping[str, Callable[[], WorkingImage]],
    sessions: Mapping[tuple[str, str, float], Session],
) -> tuple[GalleryPhoto, ...]:
    """Return up to `count` photos with a noisy and a denoised copy: some of each outcome."""
    pictures: list[GalleryPhoto] = []
    for cell in _worth_showing(result, count):
        session = sessions[cell.provider, cell.denoiser, cell.sigma]
        try:
            image = loaders[cell.photo]()
            noisy, denoised = session.look_at(image, 0)
        except SmoothAPIError:  # a replay has no pictures; a photo may be gone by now
            continue
        pictures.append(
            GalleryPhoto(
                photo=cell.photo,
                provider=cell.provider,
                denoiser=cell.denoiser,
                sigma=cell.sigma,
                original=small_picture(image.to_uint8()),
                noisy=small_picture(noisy),
                denoised=small_picture(denoised),
            )
        )
    return tuple(pictures)


def _worth_showing(result: Findings, count: int) -> list[Cell]:
    """Return cells of one way to ask, at the sigma in the middle: each kind of outcome in turn."""
    sigma = result.sigmas[len(result.sigmas) // 2]
    radius = result.rules.radii[len(result.rules.radii) // 2]
    found = [
        (cell, outcome)
        for cell in result.cells
        if cell.sigma == sigma
        and (outcome := cell.outcome(radius, result.rules.max_votes[-1])) is not None
    ]
    if not found:
        return []
    # The way that certified most is the one to be looked at.
    certified = Counter({(cell.provider, cell.denoiser): 0 for cell, _ in found})
    certified.update((cell.provider, cell.denoiser) for cell, o in found if o.certified)
    (way, _), *_ = certified.most_common(1)
    kinds: dict[tuple[str, bool | None], list[Cell]] = {}
    for cell, outcome in found:
        if (cell.provider, cell.denoiser) == way:
            kinds.setdefault((outcome.reason, outcome.agrees), []).append(cell)
    chosen: list[Cell] = []
    while len(chosen) < count and any(kinds.values()):
        for cells in kinds.values():
            if cells and len(chosen) < count:
                chosen.append(cells.pop(0))
    return chosen
