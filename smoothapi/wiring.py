"""Arguments and settings in, the opened parts of a Smoother out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from smoothapi import denoise
from smoothapi.answer import printable
from smoothapi.certify.labels import LabelSpace
from smoothapi.dispatch import (
    Adapter,
    Answers,
    AnswerStore,
    Budget,
    Dispatcher,
    Price,
    Recorder,
    Replay,
    Retry,
    SharedState,
    make_adapter,
)
from smoothapi.encode import Codec
from smoothapi.errors import UsageError
from smoothapi.label_file import read_label_space
from smoothapi.noise import MAX_SIGMA, NoiseKey
from smoothapi.sampling import Sampler
from smoothapi.variants import MadeVariants, RecordedVariants, Variants

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from smoothapi.config import Settings

_log = logging.getLogger("smoothapi")

DenoiserSpec: TypeAlias = "str | Path | denoise.Denoiser | denoise.DenoiserRuntime"


def open_sampler(
    settings: Settings,
    opened: ExitStack,
    *,
    provider: str | Adapter | None,
    denoiser: DenoiserSpec | None,
    budget: Budget | str | Sequence[Budget] | None,
    retry: Retry | None,
    refresh: bool,
) -> Sampler:
    """Open all that a run needs, and have `opened` close it, in the opposite order.

    Args:
        settings: in force where an argument is None.
        opened: what closes the parts.
        provider: as for `Smoother`, like all that follow.
        denoiser: what cleans the noise.
        budget: hard limits.
        retry: when a variant is tried again.
        refresh: ask again although answers are stored.

    Raises:
        UsageError: a value is out of range, the provider unknown, its package missing.
        StoreError: the key or the answers cannot be kept.
    """
    replay = None
    if provider is None or isinstance(provider, str):
        replay = Replay.of(settings.provider)
    answers: Answers
    if replay is not None:
        variants: Variants = _recorded(replay, settings, refresh=refresh)
        answers = replay
    else:
        variants = _made_here(provider, denoiser, settings)
        answers = AnswerStore(settings.home / "answers")
        opened.enter_context(closing(answers))
    adapter = opened.enter_context(closing(variants.adapter))
    kept_in: Answers = answers
    if settings.record is not None:
        names = {variants.denoiser.fingerprint: variants.denoiser.name}
        recorder = Recorder(answers, settings.record, names)
        kept_in = opened.enter_context(closing(recorder))
    state = opened.enter_context(closing(SharedState(settings.home / "ledger.db")))
    dispatcher = Dispatcher(
        adapter,
        kept_in,
        state,
        _budgets(budget if budget is not None else settings.budget),
        price=_price(adapter, settings),
        concurrency=settings.concurrency,
        retry=retry or Retry(attempts=settings.attempts, deadline=settings.deadline),
        max_failed=settings.max_failed,
    )
    opened.enter_context(closing(dispatcher))
    return Sampler(
        variants=variants,
        dispatcher=dispatcher,
        answers=answers,
        settings=settings,
        refresh=refresh,
    )


def _codec(settings: Settings, adapter: Adapter) -> Codec:
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


def choose_label_space(
    given: Mapping[str, Sequence[str]] | LabelSpace | str | Path | None, file: Path | None
) -> LabelSpace | None:
    """Return the label space that was given, else the one of the settings' file."""
    if isinstance(given, LabelSpace):
        return given
    if isinstance(given, Mapping):
        return LabelSpace(given)
    return None if file is None else read_label_space(file)


def _price(adapter: Adapter, settings: Settings) -> Price:
    """Return the adapter's price list, or the one that the settings give instead."""
    override: Mapping[str, Any] | None = settings.prices.get(adapter.name)
    return adapter.price if override is None else Price.parse(override, adapter.name)


def through(sampler: Sampler, adapter: Adapter, *, refresh: bool) -> Sampler:
    """Return one that asks through another adapter of the provider; see `Smoother.through`."""
    settings = sampler.settings
    return replace(
        sampler,
        variants=sampler.variants.through(adapter, _codec(settings, adapter)),
        dispatcher=sampler.dispatcher.through(adapter, _price(adapter, settings)),
        refresh=sampler.refresh or refresh,
    )


def beside(sampler: Sampler, sigma: float, denoiser: DenoiserSpec | None) -> Sampler:
    """Return one at another noise level, or with another denoiser; see `Smoother.beside`."""
    if not 0.0 < sigma <= MAX_SIGMA:
        raise UsageError(f"sigma={sigma} is out of range: noise levels are in (0, {MAX_SIGMA}].")
    runtime = None if denoiser is None else choose_denoiser(denoiser, sampler.settings.device)
    variants = sampler.variants.at(sigma, runtime)
    _say_what_it_suits(variants)
    settings = sampler.settings.model_copy(update={"sigma": sigma})
    return replace(sampler, variants=variants, settings=settings)


def _recorded(replay: Replay, settings: Settings, *, refresh: bool) -> RecordedVariants:
    if refresh:
        raise UsageError("A replay sends nothing, so it cannot ask again: refresh=False.")
    return RecordedVariants(replay, settings.sigma)


def _made_here(
    provider: str | Adapter | None, denoiser: DenoiserSpec | None, settings: Settings
) -> MadeVariants:
    adapter = _choose_adapter(provider, settings)
    variants = MadeVariants(
        adapter=adapter,
        sigma=settings.sigma,
        codec=_codec(settings, adapter),
        denoiser=choose_denoiser(
            settings.denoiser if denoiser is None else denoiser, settings.device
        ),
        key=NoiseKey.of_installation(settings.home / "noise.key"),
    )
    _say_what_it_suits(variants)
    return variants


def _say_what_it_suits(variants: Variants) -> None:
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


def _choose_adapter(provider: str | Adapter | None, settings: Settings) -> Adapter:
    if provider is None or isinstance(provider, str):
        return make_adapter(settings.provider, **settings.providers.get(settings.provider, {}))
    if isinstance(provider, Adapter):
        return provider
    raise UsageError(
        f"provider is a name or an adapter, not {type(provider).__name__}. An adapter has "
        "name, identity, limits, price, ask(payloads) and close()."
    )


def _budgets(budget: Budget | str | Sequence[Budget] | None) -> Sequence[Budget]:
    if budget is None:
        return ()
    if isinstance(budget, str):
        return (Budget.parse(budget),)
    budgets = (budget,) if isinstance(budget, Budget) else budget
    if not isinstance(budgets, Sequence) or not all(isinstance(b, Budget) for b in budgets):
        raise UsageError(
            f"budget={budget!r}: give Budget(queries=500), Budget(dollars=2), or text such as "
            "'500' or '$2'."
        )
    return budgets
