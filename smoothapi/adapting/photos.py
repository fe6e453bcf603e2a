"""The photos that a denoiser is adapted on: read once, each picture once, in a fair order."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.errors import ImageError
from smoothapi.image import load_image
from smoothapi.study.folder import truth_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smoothapi.image import PhotoSource, WorkingImage
    from smoothapi.study.folder import Found

_READERS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A photo that may be asked about.

    Attributes:
        name: its path below the folder.
        digest: SHA-256 (hex) of the working image.
        truth: the labels that are right; empty where the provider's own answer is the measure.
        source: where it is read again from.
    """

    name: str
    digest: str
    truth: tuple[str, ...]
    source: PhotoSource

    def load(self, size: int | tuple[int, int]) -> WorkingImage:
        """Return the working image; raises ImageError if the photo has gone."""
        return load_image(self.source, size=size)


def read_photos(
    found: Found,
    size: int | tuple[int, int],
    truth: Mapping[str, tuple[str, ...]] | None,
    on_read: Callable[[int, int], None],
) -> tuple[list[Subject], int]:
    """Return the photos in the order in which they are asked about, and how many are left out.

    The order depends on the pictures alone, so any beginning is a fair sample, and the same again.

    Args:
        found: where they are.
        size: of the working image.
        truth: {photo: right labels}; photos without one are then left out.
        on_read: called with the photos read so far and all there are.
    """
    subjects: dict[str, Subject] = {}

    def look(item: tuple[str, PhotoSource]) -> Subject | None:
        name, source = item
        right = () if truth is None else truth_of(name, truth)
        if truth is not None and not right:
            return None
        try:
            return Subject(name, load_image(source, size=size).digest, right, source)
        except ImageError:
            return None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="smoothapi-read") as pool:
        for number, subject in enumerate(pool.map(look, found.photos), 1):
            if subject is not None:
                subjects.setdefault(subject.digest, subject)
            on_read(number, len(found.photos))
    ordered = sorted(subjects.values(), key=lambda one: shuffled("adapt", one.digest))
    return ordered, len(found.photos) - len(ordered)


def shuffled(purpose: str, digest: str) -> bytes:
    """Return what photos are sorted by, for an order that has nothing to do with the pictures."""
    return hashlib.sha256(f"{purpose} {digest}".encode()).digest()
