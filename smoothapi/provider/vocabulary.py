"""What a provider can say: the labels that its answers can have, as far as they are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from smoothapi.provider.contract import Adapter


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The labels that an adapter's answers can have.

    An answer that never holds a word holds it in no photo: its absence could be certified of any.
    So a label that is asked for by name is held against this first. Spelling is as in answers;
    case, and spaces around a name, make no difference.

    Attributes:
        names: of labels; empty where none are known beforehand.
        closed: whether answers have no other labels. False where others are possible: then a label
            that is not among the names is asked about all the same.
        parents: name -> the more general labels that it comes with, nearest first.
        retired: name of a label that earlier models gave, and today's never gives -> until which.
        source: where the names are from, as it is to be shown: a page, a file, a package.
        as_of: date of the source (ISO), "" if it has none.
        aliases: another word for a label -> the label, whose name is what answers have.

    Raises:
        UsageError: it is closed and names nothing, a name is no text or empty, the date is none.
    """

    names: tuple[str, ...] = ()
    closed: bool = False
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retired: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    as_of: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(names := self.names, str):  # type: ignore[unreachable]
            raise UsageError(f"names={names!r}: a vocabulary is a list of labels.")
        object.__setattr__(self, "names", tuple(self.names))
        above = [name for names in self.parents.values() for name in names]
        others = (*self.retired, *self.aliases, *self.aliases.values())
        for name in (*self.names, *self.parents, *above, *others):
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"{name!r} is no label: a label is text, and not empty.")
        if self.closed and not self.names:
            raise UsageError("A closed vocabulary has a label or more: closed=False where unknown.")
        if self.as_of:
            try:
                date.fromisoformat(self.as_of)
            except ValueError as error:
                raise UsageError(f"as_of={self.as_of!r}: a date such as '2026-11-01'.") from error

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names, and those of parents that are no labels of their own; each once."""
        above = (name for names in self.parents.values() for name in names)
        return tuple(dict.fromkeys((*self.names, *above)))

    @classmethod
    def of_all(cls, parts: Iterable[Vocabulary]) -> Self:
        """Return what answers can have that are put together of several; closed if all are."""
        listed = list(parts)
        parents: dict[str, tuple[str, ...]] = {}
        for part in listed:
            parents.update(part.parents)
        names = dict.fromkeys(name for part in listed for name in part.names)
        retired = {name: last for part in listed for name, last in part.retired.items()}
        aliases = {name: label for part in listed for name, label in part.aliases.items()}
        return cls(
            names=tuple(names),
            closed=all(part.closed for part in listed),
            parents=parents,
            retired={name: last for name, last in retired.items() if name not in names},
            aliases={name: label for name, label in aliases.items() if name not in names},
            source="; ".join(dict.fromkeys(part.source for part in listed if part.source)),
            as_of=min((part.as_of for part in listed if part.as_of), default=""),
        )


@runtime_checkable
class HasVocabulary(Protocol):
    """What an adapter also has if it knows what its provider can say.

    One without it is taken to be open: any label may be asked for, and what the store has seen is
    all that is known.
    """

    def vocabulary(self) -> Vocabulary:
        """Return the labels that answers can have with these options; send nothing."""


def vocabulary_of(adapter: Adapter) -> Vocabulary:
    """Return what an adapter knows of its labels; an open vocabulary without names by default.

    Raises:
        UsageError: the adapter returns something else, which is a defect of it.
    """
    # A stranger's adapter of before may have an attribute of that name for something else.
    if not isinstance(adapter, HasVocabulary) or not callable(adapter.vocabulary):
        return Vocabulary()
    found = adapter.vocabulary()
    if not isinstance(found, Vocabulary):
        raise UsageError(
            f"The adapter {adapter.name!r} must return a Vocabulary of its labels, not a "
            f"{type(found).__name__}: this is a defect of the adapter."
        )
    return found
