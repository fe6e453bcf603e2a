"""The labels of Rekognition, as its documentation lists them, by the versions of its models."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from smoothapi.provider import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def object_labels() -> Vocabulary:
    """Return the objects, scenes and concepts that AWS lists; its model may have others.

    What is an alias there stands in answers beside a label's name, and never as one.
    """
    data = _read("object_labels.json")
    return Vocabulary(
        tuple(data["labels"]),
        aliases=data["aliases"],
        source=data["source"],
        as_of=data["as_of"],
    )


@cache
def moderation_labels(*, any_version: bool = False) -> Vocabulary:
    """Return the labels of today's model of moderation.

    Args:
        any_version: those of earlier models, too.
    """
    data = _read("moderation_labels.json")
    today = _vocabulary(data, data["as_of"])
    earlier = [_vocabulary(each, data["as_of"]) for each in data["earlier"]]
    if any_version:
        return Vocabulary.of_all([*earlier, today])
    known = {name.casefold() for name in today.names}
    retired = {
        name: each["version"]
        for each, then in zip(data["earlier"], earlier, strict=True)
        for name in then.names
        if name.casefold() not in known
    }
    return Vocabulary(
        today.names,
        closed=True,
        parents=today.parents,
        retired=retired,
        source=today.source,
        as_of=today.as_of,
    )


def _read(name: str) -> Any:
    return json.loads((files("smoothapi_adapters.aws") / name).read_text(encoding="utf-8"))


def _vocabulary(data: Any, as_of: str) -> Vocabulary:
    parents = dict(_lines(data["labels"], ()))
    return Vocabulary(
        tuple(parents), closed=True, parents=parents, source=data["source"], as_of=as_of
    )


def _lines(tree: Any, above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each label of a taxonomy with its parents, nearest first."""
    for name in tree:
        yield name, above
        if isinstance(tree, dict):
            # A label may be the only one below another of its name.
            below = {k: v for k, v in _items(tree[name]) if k != name}
            yield from _lines(below, (name, *above))


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    yield from tree.items() if isinstance(tree, dict) else ((name, {}) for name in tree)
