"""What is asked for by name, held against what the provider can say: once, before it is paid for.

A label that no answer ever holds is absent from every photo: that it is would be certified of any,
and mean nothing. So a label that the provider cannot give is refused where that is known (a closed
vocabulary, whatever was seen), and where it is not, what was never seen in a stored answer of this
very model, by the adapter's identity, is said to be so.
"""

from __future__ import annotations

import logging
import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from smoothapi.certify.labels import label_key
from smoothapi.errors import UnknownLabelError
from smoothapi.provider import vocabulary_of
from smoothapi.store import Seen
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from smoothapi.certify.labels import LabelSpace
    from smoothapi.certify.targets import Target
    from smoothapi.provider import Adapter
    from smoothapi.store import Answers

_MOST_MEANT = 3
_NEAR = 0.75  # of difflib's ratio, which is 0.83 for "Weapn" and "Weapons"
_MOST_SHOWN = 8
_log = logging.getLogger("smoothapi")


class KnownLabels:
    """The labels that are known of a provider: those that it states, and those seen in its answers.

    Args:
        adapter: who would be asked.
        answers: where its answers are kept.

    Attributes:
        vocabulary: what the provider states.
    """

    def __init__(self, adapter: Adapter, answers: Answers) -> None:
        self.vocabulary = vocabulary_of(adapter)
        self._adapter = adapter
        self._answers = answers

    @property
    def provider(self) -> str:
        """The adapter's name."""
        return self._adapter.name

    @cached_property
    def operation(self) -> str:
        """The operation of its identity, "" if that states none."""
        operation = self._adapter.identity.get("operation")
        return operation if isinstance(operation, str) else ""

    @cached_property
    def seen(self) -> Seen:
        """What stored answers of this provider and identity hold; raises StoreError."""
        if not self._remembers:
            return Seen()
        return self._answers.seen(self.provider, self._adapter.identity)

    @property
    def _remembers(self) -> bool:
        """Whether the store can tell: a stranger's may be of before it was asked to."""
        return hasattr(self._answers, "seen")

    def is_listed(self, name: str) -> bool:
        """Whether the provider states that its answers can have a label."""
        return label_key(name) in _by_key(self.vocabulary.all_names)

    def is_known(self, name: str) -> bool:
        """Whether a label is stated or, of an open vocabulary, was seen and is not retired since.

        Raises StoreError.
        """
        if self.is_listed(name):
            return True
        key = label_key(name)
        open_ = not self.vocabulary.closed
        return open_ and key not in self._retired and key in self._seen_keys

    def check(self, target: Target) -> None:
        """Refuse a target that names what the provider never says.

        Of a label space that is a class all of whose labels are such: then it could not be voted
        for. A space may list labels of other providers besides.

        Raises:
            UnknownLabelError: says what may have been meant.
        """
        if not self.vocabulary.closed:
            return
        unknown = [name for name in _named(target) if not self.is_known(name)]
        if unknown:
            raise UnknownLabelError(
                f"{self._cannot_say(unknown)} What is never said would be certified to be absent "
                f"from any photo. Nothing was sent. {self._where_to_look(unknown[0])}",
                labels=tuple(unknown),
            )
        space: LabelSpace | None = getattr(target, "space", None)
        if space is not None:
            self.check_space(space)

    def check_space(self, space: LabelSpace) -> None:
        """Refuse a label space with a class that could not be voted for; raises as `check` does."""
        if not self.vocabulary.closed or space.categories:  # vocabularies state no categories
            return
        out_of_reach = self._out_of_reach(space)
        if out_of_reach:
            named = next(iter(out_of_reach))
            labels = out_of_reach[named]
            raise UnknownLabelError(
                f"The class {named!r} can never be the answer. {self._cannot_say(labels)} Nothing "
                f"was sent. {self._where_to_look(labels[0])}",
                labels=labels,
            )

    def warn_of_strays(self, space: LabelSpace) -> None:
        """Warn of labels in a space that the provider never says, beside others that it does.

        They may be another provider's, or misspelt.
        """
        if not self.vocabulary.closed or space.categories:
            return
        names = [name for labels in space.classes.values() for name in labels]
        strays = [name for name in names if not space.plurals and not self.is_known(name)]
        if strays:
            _log.warning("%s Their classes have other labels.", self._cannot_say(strays))

    def doubted(self, target: Target, but: Container[str] = ()) -> dict[str, str]:
        """Return {label: what is to be thought of it} of what a target names of an open vocabulary.

        That is what is neither stated nor seen, though the provider states labels. It is asked for
        all the same. Labels in `but` are left out. Raises StoreError.
        """
        if self.vocabulary.closed or not self.vocabulary.all_names or not self._remembers:
            return {}
        names = [name for name in _named(target) if name not in but]
        unknown = [name for name in names if not self.is_known(name)]
        return {
            name: f"{self.who} is not known to have a label {shown}"
            f"{_stop([shown])} It is asked about all the same."
            for name in unknown
            for shown in [self._with_hint(name)]
        }

    def never_seen(self, target: Target) -> tuple[str, ...]:
        """Return what a target names that is neither stated nor in any stored answer of the model.

        Of a label space: the labels of classes none of whose labels is known. Raises StoreError.
        """
        if not self._remembers:
            return ()
        unknown = [name for name in _named(target) if not self.is_known(name)]
        space: LabelSpace | None = getattr(target, "space", None)
        if space is not None:
            unknown += [name for names in self._out_of_reach(space).values() for name in names]
        return tuple(dict.fromkeys(unknown))

    def rows(self) -> list[dict[str, Any]]:
        """Return all labels that are known, in the order in which they are stated, ready for JSON.

        Those that were only seen come after, by name; then those that are retired.
        """
        stated = self.vocabulary
        listed = _by_key(stated.all_names)
        told = listed.keys() | self._retired.keys()
        aliases: dict[str, list[str]] = {}
        for alias, label in stated.aliases.items():
            aliases.setdefault(label_key(label), []).append(alias)
        more = [name for name in sorted(self.seen.labels) if label_key(name) not in told]
        return [
            {
                "name": name,
                "parents": list(stated.parents.get(name, ())),
                "stated": label_key(name) in listed,
                "seen": label_key(name) in self._seen_keys,
                "retired": self._retired.get(label_key(name)),
                "aliases": aliases.get(label_key(name), []),
            }
            for name in (*stated.all_names, *more, *stated.retired)
        ]

    def meant(self, name: str) -> tuple[str, ...]:
        """Return the known labels that may be meant by one that is not known, likeliest first."""
        if (label := self._aliases.get(label_key(name))) is not None:
            return (label,)
        seen = () if self.vocabulary.closed else sorted(self.seen.labels)
        return meant_by(name, tuple(dict.fromkeys((*self.vocabulary.all_names, *seen))))

    @cached_property
    def _seen_keys(self) -> frozenset[str]:
        return frozenset(map(label_key, self.seen.labels))

    @cached_property
    def _retired(self) -> Mapping[str, str]:
        return {label_key(name): last for name, last in self.vocabulary.retired.items()}

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        return {label_key(name): label for name, label in self.vocabulary.aliases.items()}

    def _out_of_reach(self, space: LabelSpace) -> dict[str, tuple[str, ...]]:
        """Return the classes that no known label belongs to, each with its labels."""
        missing = set(space.classes) - {space.class_of(n) for n in self.vocabulary.all_names}
        if missing and not self.vocabulary.closed:  # only then is the store asked
            missing -= {space.class_of(name) for name in self.seen.labels}
        if missing and space.categories:
            missing -= {space.class_of(name) for name in self.seen.categories}
        return {name: tuple(space.classes[name]) for name in space.classes if name in missing}

    def _cannot_say(self, names: Iterable[str]) -> str:
        """Return that names are no labels of the provider's, and what may be meant by each."""
        listed = list(names)
        texts = [self._with_hint(name) for name in listed[:_MOST_SHOWN]]
        more = f", and {len(listed) - _MOST_SHOWN} more" if len(listed) > _MOST_SHOWN else ""
        stated = self.vocabulary
        source = ", ".join(filter(None, (printable(stated.source), stated.as_of)))
        count = f"It has {len(stated.all_names):,} labels{f' ({source})' if source else ''}."
        return f"{self.who} has no label {'; '.join(texts)}{more}{_stop(texts)} {count}"

    def _with_hint(self, name: str) -> str:
        shown = repr(printable(name))
        if (last := self._retired.get(label_key(name))) is not None:
            shown += f" (its model gave it until {printable(last)})"
        meant = [repr(printable(each)) for each in self.meant(name)]
        return f"{shown}: did you mean {' or '.join(meant)}?" if meant else shown

    @property
    def who(self) -> str:
        """The provider and its operation, as they are shown."""
        plain = self.operation in ("", "label")
        return self.provider if plain else f"{self.provider} ({printable(self.operation)})"

    def _where_to_look(self, name: str) -> str:
        word = next(iter(re.findall(r"\w{3,}", name)), "")
        search = f" --search {printable(word)[:4].lower()}" if word else ""
        return f"`smoothapi providers labels {self.provider}{search}` shows its labels."


def _named(target: Any) -> tuple[str, ...]:
    """Return the labels that a target asks for by name."""
    names = getattr(target, "labels", ())
    return tuple(names) if isinstance(names, (tuple, list)) else ()


@lru_cache(maxsize=16)
def _by_key(names: tuple[str, ...]) -> Mapping[str, str]:
    return {label_key(name): name for name in names}


def meant_by(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of names that another may stand for, likeliest first."""
    known = _by_key(names)
    key = label_key(name)
    bare = _bare(key)
    same = [each for each in known if _bare(each) == bare] if bare else []
    if same:
        return tuple(known[each] for each in same)[:_MOST_MEANT]
    from difflib import get_close_matches  # noqa: PLC0415  for names that are not known

    near = get_close_matches(key, known, n=_MOST_MEANT, cutoff=_NEAR)
    words = f" {_spaced(key)} "
    within = [each for each in known if words.strip() and words in f" {_spaced(each)} "]
    found = dict.fromkeys((*near, *sorted(within, key=len)))
    return tuple(known[each] for each in found)[:_MOST_MEANT]


def _stop(texts: list[str]) -> str:
    return "" if texts[-1].endswith("?") else "."


def _bare(key: str) -> str:
    return "".join(filter(str.isalnum, key))


def _spaced(key: str) -> str:
    return " ".join(re.findall(r"\w+", key.replace("_", " ")))
