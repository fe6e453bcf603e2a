"""The options of a `Smoother`, declared once: `wrap`, `Study` and `denoiser adapt` share them.

What each means and its range stand in the docstring of `Smoother`; defaults are the settings'
(`smoothapi.config`).
"""

from __future__ import annotations

import inspect
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypedDict, TypeVar

from smoothapi import config
from smoothapi.text import meant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from smoothapi.certify.labels import LabelSpace
    from smoothapi.denoise import Denoiser, DenoiserRuntime
    from smoothapi.dispatch import Retry
    from smoothapi.store import Budget

Radius: TypeAlias = float | str
"""A number, "largest", or one with a unit: see `smoothapi.radius`."""
Size: TypeAlias = "int | tuple[int, int]"
Budgets: TypeAlias = "Budget | str | Sequence[Budget]"
Classes: TypeAlias = "Mapping[str, Sequence[str]] | LabelSpace | str | Path"
DenoiserSpec: TypeAlias = "str | Path | Denoiser | DenoiserRuntime"
"""A torch module is a `Denoiser`, too."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class AskOptions(TypedDict, total=False):
    """How a provider is asked about variants."""

    size: Size | None
    device: str | None
    codec: str | None
    concurrency: int | None
    retry: Retry | None
    home: str | Path | None
    noise_key_file: str | Path | None


class SharedOptions(AskOptions, total=False):
    """What holds for all that is certified, however many photos it is about."""

    alpha: float | None
    refresh: bool


class CertifyOptions(SharedOptions, total=False):
    """What one certificate needs to know besides."""

    sigma: float | None
    radius: Radius | None
    max_votes: int | None
    final: bool | None
    denoiser: DenoiserSpec | None


class SmootherOptions(CertifyOptions, total=False):
    """All options of a `Smoother`."""

    budget: Budgets | None
    classes: Classes | None
    plain: bool | None
    partial: bool | None
    record: str | Path | None


def keywords(*declared: type) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Have a function that takes `**options` show and accept those of TypedDicts, and no others.

    The signature lists them one by one, for `help`, notebooks and the reference; an unknown one is
    a TypeError that names the nearest.
    """
    names = [name for kind in declared for name in kind.__annotations__]

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        shown = inspect.signature(function)
        own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
        known = [*(p.name for p in own if p.kind is not p.POSITIONAL_ONLY), *names]
        types = {  # as a source would have them
            name: getattr(annotation, "__forward_arg__", annotation)
            for kind in declared
            for name, annotation in kind.__annotations__.items()
        }

        @wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for name in kwargs:
                if name not in known:
                    raise TypeError(
                        f"{function.__qualname__.removesuffix('.__init__')}() got an unexpected "
                        f"keyword argument {name!r}.{meant(name, known)}"
                    )
            return function(*args, **kwargs)

        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if kind == "bool" else None,
                annotation=kind,
            )
            for name, kind in types.items()
        ]
        called.__signature__ = shown.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return called

    return decorate


def resolve(
    provider: object, options: Mapping[str, Any], *, given_in: str = "argument"
) -> config.Resolved:
    """Return the settings in force, and where each came from.

    Options that no setting can hold, such as objects, are left out.

    Args:
        provider: a name, or an object.
        options: those that were given.
        given_in: where, as errors about them say.

    Raises:
        UsageError: a value is out of range, or is a folder's and needs consent; says where it came
            from.
    """
    from smoothapi.settings import Settings  # noqa: PLC0415  pydantic

    kinds: dict[str, type | tuple[type, ...]] = {
        "classes": (str, Path),
        "denoiser": str,
        "size": int,
        "budget": (),  # it is a hard limit: read by `Budget.parse`, which says more
    }
    given = {
        name: value
        for name, value in options.items()
        if name in Settings.model_fields and isinstance(value, kinds.get(name, object))
    }
    named = provider if isinstance(provider, str) else None
    resolved = config.resolve(given_in, provider=named, **given)
    replaced = {name for name, value in options.items() if value is not None}
    if provider is not None:
        replaced.add("provider")
    resolved.require_trust(set(Settings.model_fields) - replaced)
    return resolved
