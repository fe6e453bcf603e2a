"""Arguments and settings in, an open session out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Unpack

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.mixes import Mixes
from smoothapi.options import SmootherOptions, resolve
from smoothapi.parts import (
    choose_budgets,
    choose_label_space,
    made_here,
    recorded,
)
from smoothapi.provider import choose_price
from smoothapi.session import Resources, Session
from smoothapi.store import Answers, Recorder, Replay, open_home

if TYPE_CHECKING:
    from smoothapi.config import Resolved
    from smoothapi.provider import Adapter
    from smoothapi.store import Store
    from smoothapi.variants import Variants


def open_session(
    provider: str | Adapter | None = None,
    *,
    store: Store | None = None,
    **options: Unpack[SmootherOptions],
) -> Session:
    """Open all that a run needs. Close the session, or what it holds stays open.

    Args:
        provider: name of a registered adapter, "replay:FILE", or an adapter.
        store: the home, open, which several sessions share and none closes; by default the one
            that the options name is opened.
        options: as for `Smoother`.

    Raises:
        UsageError: a value is out of range, the provider unknown, its package missing.
        StoreError: the key or the answers cannot be kept.
    """
    resolved = resolve(provider, options)
    resources = Resources()
    try:
        settings = resolved.settings
        if store is None:
            store = open_home(settings.home, settings.noise_key_file)
            resources.enter_context(closing(store))
        return _open(provider, options, resolved, store, resources)
    except BaseException:
        resources.close()
        raise


def _open(
    provider: str | Adapter | None,
    options: SmootherOptions,
    resolved: Resolved,
    home: Store,
    resources: Resources,
) -> Session:
    settings = resolved.settings
    budget, size, refresh = options.get("budget"), options.get("size"), options.get("refresh")
    space = choose_label_space(options.get("classes"), settings.classes)
    replay = None
    if provider is None or isinstance(provider, str):
        replay = Replay.of(settings.provider)
    mixes: Mixes | None
    if replay is not None:
        variants: Variants = recorded(replay, settings, refresh=bool(refresh))
        mixes = None if replay.mixes is None else Mixes.from_dict(replay.mixes)
    else:
        variants = made_here(provider, options.get("denoiser"), resolved, home)
        mixes = Mixes.load(home)
    adapter = resources.enter_context(closing(variants.adapter))
    answers: Answers = home.answers if replay is None else replay
    kept_in: Answers = answers
    if settings.record is not None:
        names = {variants.denoiser.fingerprint: variants.denoiser.name}
        rules = None if mixes is None else mixes.to_dict()
        recorder = Recorder(answers, settings.record, names, rules)
        kept_in = resources.enter_context(closing(recorder))
    dispatcher = Dispatcher.open(
        adapter,
        kept_in,
        home,
        choose_budgets(settings.budget if budget is None else budget),
        price=choose_price(settings, adapter),
        concurrency=settings.concurrency,
        retry=options.get("retry") or Retry(attempts=settings.attempts, deadline=settings.deadline),
        max_failed=settings.max_failed,
    )
    resources.enter_context(closing(dispatcher))
    session = Session(
        variants=variants,
        dispatcher=dispatcher,
        answers=answers,
        settings=settings,
        size=settings.size if size is None else size,
        space=space,
        refresh=bool(refresh),
        mixes=mixes,
        resources=resources,
        store=home,
    )
    if space is not None:
        session.known_labels.check_space(space)
        session.known_labels.warn_of_strays(space)
    return session
