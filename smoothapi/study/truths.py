"""A study's truth held against what can be answered: a typo makes a photo look hard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi.certify.labels import label_key
from smoothapi.certify.targets import Top1
from smoothapi.known_labels import meant_by
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from smoothapi.certify.labels import LabelSpace
    from smoothapi.certify.targets import Target
    from smoothapi.known_labels import KnownLabels
    from smoothapi.study.findings import Cell, Photo

_MOST_SHOWN = 8


def doubts_before(
    photos: Iterable[Photo], target: Target, known: Mapping[str, KnownLabels]
) -> Iterator[str]:
    """Yield what is wrong with the truth as far as it shows before anything is sent, in words.

    With classes, a truth is one of them; without, one of the labels of a provider that says all
    labels it has. What is neither can never be right.

    Args:
        photos: with what they are said to show.
        target: what is certified.
        known: the labels that are known of each provider.
    """
    if not isinstance(target, Top1):
        return
    counts = _counted(photos)
    space = target.space
    if space is not None:
        classes = tuple(space.classes)
        keys = set(map(label_key, classes))
        wrong = {name: n for name, n in counts.items() if label_key(name) not in keys}
        yield from _told(wrong, "is none of the classes", lambda name: _of_class(name, space))
        return
    for provider, labels in known.items():
        if labels.vocabulary.closed:
            wrong = {name: n for name, n in counts.items() if not labels.is_known(name)}
            what = f"is no label of {printable(provider)}"
            yield from _told(wrong, what, labels.meant)


def doubts_after(
    photos: Sequence[Photo],
    target: Target,
    cells: Iterable[Cell],
    known: Mapping[str, KnownLabels],
) -> Iterator[str]:
    """Yield, in words, which truths no answer of a study ever gave, to photo or noisy copy.

    Of a provider whose labels are not all known that is all that can be said: its label may be
    called otherwise, or the truth be misspelt.
    """
    if not isinstance(target, Top1) or target.space is not None:
        return
    stated = [labels for labels in known.values() if labels.vocabulary.all_names]
    if any(labels.vocabulary.closed for labels in stated):
        return  # told before
    said = {label for cell in cells for label in (*cell.tally, cell.plain) if label is not None}
    keys = set(map(label_key, said))
    wrong = {
        name: n
        for name, n in _counted(photos).items()
        if label_key(name) not in keys and not any(labels.is_listed(name) for labels in stated)
    }
    names = tuple(sorted(said))
    yield from _told(wrong, "was in no answer of this study", lambda name: meant_by(name, names))


def _counted(photos: Iterable[Photo]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in (name for photo in photos for name in photo.truth):
        counts[name] = counts.get(name, 0) + 1
    return counts


def _of_class(name: str, space: LabelSpace) -> tuple[str, ...]:
    """Return the class that a provider's label belongs to, or those that may be meant."""
    found = space.class_of(name)
    return (found,) if found is not None else meant_by(name, tuple(space.classes))


def _told(
    wrong: Mapping[str, int], what: str, meant: Callable[[str], tuple[str, ...]]
) -> Iterator[str]:
    for name, count in list(wrong.items())[:_MOST_SHOWN]:
        hints = " or ".join(repr(printable(hint)) for hint in meant(name))
        asked = f" Did you mean {hints}?" if hints else ""
        of = "1 photo" if count == 1 else f"{count:,} photos"
        yield f"The truth {printable(name)!r} of {of} {what}, so none can be right.{asked}"
    if len(wrong) > _MOST_SHOWN:
        yield f"So it is of {len(wrong) - _MOST_SHOWN:,} more labels of the truth."
