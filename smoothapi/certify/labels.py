"""From an answer to a vote: which label counts."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from smoothapi.answer import Answer, Label

_RULES = ("plurals", "parents", "categories")


@dataclass(frozen=True)
class LabelSpace:
    """The caller's classes, as a mapping from the provider's labels.

    Provider labels are compared without regard to case, to spaces around them, and to how accents
    are composed (Unicode NFC); classes are returned as the caller wrote them. Synonyms are the
    labels that a class lists. Labels of the provider that no class names are not votes. All else
    is off unless it is asked for:

    Args:
        classes: {class: [provider labels]}, such as {"bird": ["Bird", "Vulture"]}.
        plurals: a listed label also stands for its regular English plural, and for what it is the
            regular plural of: "bus" and "buses", "city lights" and "city light". Only the last
            word is looked at; irregular ones ("mice", "leaves") are to be listed.
        parents: a label that no class lists counts for the class that lists the first of its
            parents which one does: "Vulture" for ["Bird"].
        categories: the same with the provider's categories, after the parents.

    Raises:
        UsageError: `classes` is empty, a class or label is empty, or a provider label is mapped to
            two classes.
    """

    classes: Mapping[str, Sequence[str]]
    plurals: bool = field(default=False, kw_only=True)
    parents: bool = field(default=False, kw_only=True)
    categories: bool = field(default=False, kw_only=True)
    _listed: dict[str, str] = field(init=False, repr=False, compare=False)
    _class_of: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes:
            raise UsageError('A label space needs a class: {"bird": ["Bird", "Vulture"]}.')
        for rule in _RULES:
            if not isinstance(getattr(self, rule), bool):
                raise UsageError(f"{rule}={getattr(self, rule)!r}: True or False.")
        listed: dict[str, str] = {}
        class_of: dict[str, str] = {}
        classes = {name: _checked(name, labels) for name, labels in self.classes.items()}
        for name, labels in classes.items():
            for label in labels:
                key = label_key(label)
                if not key:
                    raise UsageError(f"Class {name!r} has an empty label.")
                listed[key] = name
                for form in _forms(key) if self.plurals else (key,):
                    if class_of.setdefault(form, name) != name:
                        raise UsageError(
                            f"The provider's label {label!r} is mapped to {class_of[form]!r} and "
                            f"to {name!r}, so a vote for it would be for both. Labels are compared "
                            "without regard to case"
                            + (", and to number, as plurals=True says." if self.plurals else ".")
                            + " Choose one."
                        )
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "_listed", listed)
        object.__setattr__(self, "_class_of", class_of)

    def __hash__(self) -> int:
        return hash(self.digest)

    def class_of(self, label: str | Label) -> str | None:
        """Return the class that a provider label belongs to, None if classes leave it out.

        Args:
            label: a label, or only its name; then its parents and categories are not known.
        """
        if isinstance(label, str):
            return self._class_of.get(label_key(label))
        found = (self._class_of.get(label_key(name)) for name in self._names(label))
        return next((name for name in found if name is not None), None)

    def unmapped(self, answer: Answer) -> tuple[str, ...]:
        """Return the names of an answer's labels that belong to no class, in its order."""
        return tuple(label.name for label in answer.labels if self.class_of(label) is None)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the mapping, the same whatever its order and case of labels."""
        canonical: Any = sorted(self._listed.items())
        if rules := self._rules():
            canonical = {"classes": canonical, **rules}
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse` makes the same label space of."""
        classes = {name: list(labels) for name, labels in self.classes.items()}
        rules = self._rules()
        return {"classes": classes, **rules} if rules else classes

    @classmethod
    def parse(cls, data: object) -> LabelSpace:
        """Return the label space that a dict means.

        Args:
            data: {class: [labels]}; or {"classes": {class: [labels]}} with plurals, parents and
                categories beside it.

        Raises:
            UsageError: it is neither.
        """
        if not isinstance(data, Mapping):
            raise UsageError("A label space is a mapping of classes to lists of labels.")
        classes, rules = data, {}
        if isinstance(data.get("classes"), Mapping):
            classes = data["classes"]
            rules = {name: value for name, value in data.items() if name != "classes"}
        if unknown := set(rules) - set(_RULES):
            raise UsageError(
                f"A label space has no {', '.join(sorted(map(repr, unknown)))} beside its classes; "
                f"it has {', '.join(_RULES)}."
            )
        return cls(classes, **rules)

    def _rules(self) -> dict[str, bool]:
        return {name: True for name in _RULES if getattr(self, name)}

    def _names(self, label: Label) -> Iterator[str]:
        yield label.name
        if self.parents:
            yield from label.parents
        if self.categories:
            yield from label.categories


def top1(answer: Answer, space: LabelSpace | None = None) -> str | None:
    """Return the vote of an answer: its label with the highest score.

    Several labels can share the highest score to the last digit. Then the most specific is meant:
    a label that another of them names among its parents loses; of those left, the first by name.
    A label with score 0 is not counted: the provider says that it is not there.

    Args:
        answer: the provider's labels, in any order.
        space: the caller's classes; then only labels that belong to one compete.

    Returns:
        The label's name as the provider gave it, or its class; None ("no answer") if the answer
        has no label that counts.
    """
    labels: Iterable[Label] = answer.labels
    if space is not None:
        labels = [label for label in labels if space.class_of(label) is not None]
    best = max((label.score for label in labels), default=None)
    if not best:
        return None
    tied = [label for label in labels if label.score == best]
    parents = {parent for label in tied for parent in label.parents if parent != label.name}
    # Labels that name each other as parents all drop out: then all are equally specific.
    specific = [label for label in tied if label.name not in parents] or tied
    if space is None:
        return min(label.name for label in specific)
    return min(name for label in specific if (name := space.class_of(label)) is not None)


def label_key(label: str) -> str:
    """Return what labels are compared by: no case, no spaces around, accents composed."""
    folded = unicodedata.normalize("NFC", label).strip().casefold()
    return unicodedata.normalize("NFC", folded)  # folding takes some letters apart again


def _forms(key: str) -> set[str]:
    """Return a label's key, its regular plurals, and what it is the regular plural of."""
    at = max(key.rfind(mark) for mark in " -_") + 1
    head, word = key[:at], key[at:]
    stems = {word.removesuffix("s"), word.removesuffix("es")}
    if word.endswith("ies"):
        stems.add(f"{word[:-3]}y")
    singulars = {stem for stem in stems if word in _plurals(stem)}
    return {head + form for form in (word, *_plurals(word), *singulars)}


def _plurals(word: str) -> set[str]:
    """Return the regular English plurals of a word: bus, buses; city, cities; photo, photo(e)s."""
    if len(word) < 3 or not word.isalpha():
        return set()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return {f"{word}es"}
    if word[-1] == "y" and word[-2] not in "aeiou":
        return {f"{word[:-1]}ies"}
    if word[-1] == "o" and word[-2] not in "aeiou":
        return {f"{word}s", f"{word}es"}
    return {f"{word}s"}


def _checked(name: object, labels: Any) -> tuple[str, ...]:
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{name!r} cannot name a class: a name is text, and not empty.")
    is_list = not isinstance(labels, (str, Mapping)) and hasattr(labels, "__iter__")
    listed = tuple(labels) if is_list else ()
    if not listed or not all(isinstance(label, str) for label in listed):
        raise UsageError(
            f"Class {name!r} needs a list of the provider's labels, such as [{name.title()!r}], "
            f"not {labels!r}."
        )
    return listed
