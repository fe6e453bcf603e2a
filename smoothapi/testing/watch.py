"""Watch what a piece of code tells and whom it calls: records, errors, texts, connections."""

from __future__ import annotations

import base64
import json
import logging
import socket
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import quote

from smoothapi.provider import NeedsCredentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.provider import Adapter

_ORDINARY = frozenset(vars(logging.makeLogRecord({})))


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.kept: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = {k: v for k, v in vars(record).items() if k not in _ORDINARY}
        self.kept.append((record.name, f"{self.format(record)}\n{record.args!r}\n{extra!r}"))


@contextmanager
def everything_logged() -> Iterator[list[tuple[str, str]]]:
    """Collect (logger, text) of each record of every logger, whatever their levels say."""
    handler = _Keep()
    root = logging.getLogger()
    known = [item for item in root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    loggers = [root, *known]
    before = [(logger, logger.level, logger.disabled) for logger in loggers]
    disabled = root.manager.disable
    heads = [logger for logger in loggers if logger is root or not logger.propagate]
    logging.disable(logging.NOTSET)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
    for logger in heads:
        logger.addHandler(handler)
    try:
        yield handler.kept
    finally:
        for logger in heads:
            logger.removeHandler(handler)
        for logger, level, was_disabled in before:
            logger.setLevel(level)
            logger.disabled = was_disabled
        logging.disable(disabled)


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuse each connection and each look-up of a name by Python's sockets; collect whereto."""
    attempts: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        attempts.append(repr([a for a in arguments if not isinstance(a, socket.socket)]))
        raise OSError("this test allows no network")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket.socket, "connect_ex", refuse),
        mock.patch.object(socket.socket, "sendto", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(socket, "create_connection", refuse),
    ):
        yield attempts


def look_at(adapter: Adapter) -> list[str]:
    """Return all that a curious caller sees of an adapter."""
    texts = [repr(adapter), str(adapter), adapter.name, repr(adapter.limits), repr(adapter.price)]
    texts.append(json.dumps(dict(adapter.identity)))
    if isinstance(adapter, NeedsCredentials):
        texts.append(repr(adapter.credentials()))
    return texts


def told(error: BaseException) -> str:
    """Return all that an error tells, with its causes and what it carries."""
    texts: list[str] = ["".join(traceback.format_exception(error))]
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        texts += [str(link), repr(link), repr(link.args), repr(_public(link))]
        chain += [link.__cause__, link.__context__]
    return "\n".join(texts)


def _public(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("__")}


def forms(secret: str) -> set[str]:
    """Return how a secret may look in a text."""
    coded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, coded[:-1] if len(coded) > 8 else coded, quote(secret, safe="")}


def excerpts(payload: bytes) -> set[str]:
    """Return pieces by which a picture would be recognised in a text."""
    if len(payload) < 90:
        return set()
    middle = len(payload) // 6 * 3  # where base64 of the whole has the same letters
    piece = payload[middle : middle + 24]
    return {base64.b64encode(piece).decode(), repr(piece)[2:-1], piece.hex()}
