"""Settings in, one part of a session out: adapter, denoiser, codec, prices, classes, budgets."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from smoothapi import denoise
from smoothapi.certify.labels import LabelSpace
from smoothapi.encode import Codec
from smoothapi.errors import UsageError
from smoothapi.label_file import read_label_space
from smoothapi.noise import NoiseKey
from smoothapi.provider import Adapter, adapter_options, make_adapter
from smoothapi.store import Budget, Replay
from smoothapi.text import printable
from smoothapi.variants import MadeVariants, RecordedVariants, Variants

if TYPE_CHECKING:
    from smoothapi.config import Resolved
    from smoothapi.options import Budgets, Classes, DenoiserSpec
    from smoothapi.settings import Settings
    from smoothapi.store import Store

_log = logging.getLogger("smoothapi")


def choose_codec(settings: Settings, adapter: Adapter) -> Codec:
    """Return how pictures are encoded for a provider; raises UsageError if it takes no such."""
    name, limits = settings.codec, adapter.limits
    if name not in limits.formats:
        raise UsageError(
            f"{adapter.name} does not take {name}; choose codec={' or '.join(limits.formats)}."
        )
    return Codec(
        name,
        min_side=limits.min_side,
        jpeg_above=limits.max_bytes if "jpeg" in limits.formats else None,
    )


def choose_denoiser(given: DenoiserSpec, device: str) -> denoise.DenoiserRuntime:
    """Return a denoiser that is loaded already, or load what is given."""
    if denoise.is_runtime(given):
        return given
    return denoise.load(cast("str | Path | denoise.Denoiser", given), device=device)


def choose_label_space(given: Classes | None, file: Path | None = None) -> LabelSpace | None:
    """Return the label space that was given, or is in a file.

    Args:
        given: as for `Smoother`.
        file: of the settings, which have read a path that was given; it goes before `given`.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(given, LabelSpace):
        return given
    if isinstance(given, Mapping):
        return LabelSpace(given)
    if given is not None and not isinstance(given, (str, Path)):
        raise UsageError(
            f"classes is a mapping {{class: [provider labels]}}, a LabelSpace or a file, not "
            f"{type(given).__name__}."
        )
    path = given if file is None else file
    return None if path is None else read_label_space(path)


def recorded(replay: Replay, settings: Settings, *, refresh: bool) -> RecordedVariants:
    """Return the variants that a recording answers about."""
    if refresh:
        raise UsageError("A replay sends nothing, so it cannot ask again: refresh=False.")
    return RecordedVariants(replay, settings.sigma)


def made_here(
    provider: str | Adapter | None, denoiser: DenoiserSpec | None, resolved: Resolved, store: Store
) -> MadeVariants:
    """Return variants that are made on this machine, for a provider that is asked."""
    settings = resolved.settings
    adapter = choose_adapter(provider, resolved)
    variants = MadeVariants(
        adapter=adapter,
        sigma=settings.sigma,
        codec=choose_codec(settings, adapter),
        denoiser=choose_denoiser(
            settings.denoiser if denoiser is None else denoiser, settings.device
        ),
        key=NoiseKey(store.keys().current),
    )
    warn_unsuited(variants)
    return variants


def warn_unsuited(variants: Variants) -> None:
    """Warn of a denoiser that was adapted to something else: sound, but perhaps the worse for it.

    What suits one provider, or one noise level, can harm another.
    """
    adaptation = variants.denoiser.adaptation
    if adaptation is None:
        return
    name, sigma = variants.adapter.name, variants.sigma
    if adaptation.provider != name or adaptation.sigma != sigma:
        _log.warning(
            "The denoiser %s was adapted to %s at sigma %g, and is used for %s at sigma %g. "
            "Certificates are valid, but the default denoiser may do better here.",
            variants.denoiser.name,
            printable(adaptation.provider),
            adaptation.sigma,
            name,
            sigma,
        )


def choose_adapter(provider: str | Adapter | None, resolved: Resolved) -> Adapter:
    """Return the adapter of a name, or the one that was given."""
    if provider is None or isinstance(provider, str):
        name = resolved.settings.provider
        return make_adapter(name, **adapter_options(name, resolved))
    if isinstance(provider, type):
        raise UsageError(
            f"provider is the class {provider.__name__}: make an adapter of it, such as "
            f"{provider.__name__}()."
        )
    if isinstance(provider, Adapter):
        if inspect.iscoroutinefunction(provider.ask):
            raise UsageError(
                f"The adapter {provider.name!r} is asynchronous: its ask is awaited. smoothapi "
                "asks from threads of its own: make ask a plain method, which may block."
            )
        return provider
    raise UsageError(
        f"provider is a name or an adapter, not {type(provider).__name__}. An adapter has "
        "name, identity, limits, price, ask(payloads) and close()."
    )


def choose_budgets(budget: Budgets | None) -> Sequence[Budget]:
    """Return hard limits as values; raises UsageError if one is not a limit."""
    if budget is None:
        return ()
    if isinstance(budget, str):
        return (Budget.parse(budget),)
    budgets = (budget,) if isinstance(budget, Budget) else budget
    if not isinstance(budgets, Sequence) or not all(isinstance(b, Budget) for b in budgets):
        raise UsageError(
            f"budget={budget!r}: give Budget(attempts=500), Budget(dollars=2), or text such as "
            "'500' or '$2'."
        )
    return budgets
