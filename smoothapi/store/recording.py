"""Answers in a file of their own: to replay where there is no account, to keep with a test.

A recording is JSON lines: a header, then a line an answer, as the store keeps it: what was asked,
what was answered, and the SHA-256 of the bytes that were sent. No image, no secret: of the noise
key it has the public id. Recordings may be joined by `cat`. Each line carries a checksum against
slips of an editor (not a signature: who wants to can make another).
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi._version import __version__
from smoothapi.errors import FatalError, PermanentError, SmoothAPIError, StoreError, UsageError
from smoothapi.files import SyntaxOfJsonError, expanded, parse_json
from smoothapi.provider.contract import Limits
from smoothapi.provider.price import Price
from smoothapi.store.owners import refuse_fork
from smoothapi.store.rows import (
    answer_key,
    answer_row,
    checksum,
    names_in_row,
    outcome_of,
    seen_among,
    source_of,
)
from smoothapi.text import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.store.protocols import Answers
    from smoothapi.store.rows import Seen, SeenName, StoredAnswer

SCHEMA = "smoothapi.recording/1"
PREFIX = "replay:"
_SYNC = 1.0  # seconds after which a line is on the disk itself; the store has it at once
_log = logging.getLogger("smoothapi")

_TYPES: Mapping[str, tuple[type, ...]] = {
    "image": (str,),
    "codec": (str,),
    "width": (int,),
    "height": (int,),
    "index": (int,),
    "sigma": (int, float),
}


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row of a recording as a line of it, with its checksum."""
    return json.dumps({**row, "check": checksum(row)}, separators=(",", ":")) + "\n"


def header(
    denoisers: Mapping[str, str] | None = None, mixes: Mapping[str, Any] | None = None
) -> str:
    """Return the first line of a recording.

    Args:
        denoisers: names by fingerprint, to be shown by a replay.
        mixes: of shares, by which runs were given up (`smoothapi.mixes`), ready for JSON: a replay
            goes by them too, or it would ask for more than was recorded.
    """
    row = {"schema": SCHEMA, "version": __version__, "denoisers": dict(denoisers or {})}
    if mixes is not None:
        row["mixes"] = dict(mixes)
    return json.dumps(row, separators=(",", ":")) + "\n"


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, a row or a header; None if it was cut off.

    A killed process may leave such a line, at the end or, if the recording was continued, within.

    Raises:
        StoreError: it is neither, or was changed since it was written.
    """
    try:
        row = parse_json(line)
    except SyntaxOfJsonError as error:
        if line.startswith(b"{"):
            _log.warning("A line is cut off, as by a process killed while it wrote: left out.")
            return None
        raise StoreError("it is not JSON.") from error
    except ValueError as error:
        raise StoreError(f"{error}.") from error
    if not isinstance(row, dict) or "schema" not in row:
        raise StoreError("it is not a stored answer.")
    if is_header(row):
        if row["schema"] != SCHEMA:
            raise StoreError(
                f"it has schema {shortened(row['schema'])}; this version reads {SCHEMA!r}."
            )
        names = row.get("denoisers")
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise StoreError("it is a header without the names of its denoisers.")
        return row
    check = row.pop("check", None)
    if check is not None and check != checksum(row):
        raise StoreError(
            'it was changed since it was written. If that was meant, delete its "check".'
        )
    return row


def is_header(row: Mapping[str, Any]) -> bool:
    """Return whether it is a header: it holds no answer."""
    return isinstance(row["schema"], str)


def read_recording(file: str | Path) -> Iterator[tuple[dict[str, Any], Answer | PermanentError]]:
    """Yield each row of a recording with what was answered; where one was asked twice, both.

    A line that is cut off, as a killed process may leave it, is skipped with a warning.

    Raises:
        UsageError: the file cannot be read, or a line is not a stored answer; says which.
    """
    for row in _rows(Path(file)):
        if not is_header(row):
            yield row, outcome_of(row)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield headers and rows, checked."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    row = parse_line(line)
                    if row is not None and not is_header(row):
                        check_row(row)
                except StoreError as error:
                    raise UsageError(
                        f"Line {number:,} of the recording {str(path)!r} cannot be used: {error}"
                    ) from error
                if row is not None:
                    yield row
    except UsageError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            f"The recording {str(path)!r} cannot be read: {reason or error}."
        ) from error


def check_row(row: Mapping[str, Any]) -> None:
    """Check that a row is a stored answer, with all that a replay asks of it.

    Raises:
        StoreError: it is not; says why.
    """
    try:
        outcome_of(row)
        asked = row["asked"]
        answer_key(asked)
        Provenance.of(asked)
        if "image" in asked:
            width, height = asked["size"]
            facts = {**asked, "width": width, "height": height}
            for name, kinds in _TYPES.items():
                if name in facts and type(facts[name]) not in kinds:
                    raise StoreError(f"its {name} cannot be {shortened(facts[name])}.")
            if "sigma" in asked and "index" not in asked:
                raise StoreError("it is about a variant, and has no index.")
        if not isinstance(row.get("payload", ""), str):
            raise StoreError("its payload is not the digest of what was sent.")
    except SmoothAPIError as error:
        raise StoreError(str(error)) from error
    except KeyError as error:
        raise StoreError(f"it lacks {shortened(error.args[0])}.") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise StoreError(f"it is not a stored answer ({shortened(str(error), 100)}).") from error


class Recorder:
    """A store that also writes each answer it takes or gives to a recording.

    A recording that exists is continued. Threads and processes may write to one file: each line
    is appended in one piece. It survives the death of the process at once, and a loss of power
    after a second; the store keeps the answers in any case.

    Args:
        store: where answers are kept besides.
        file: the recording.
        denoisers: names of denoisers by fingerprint, to be shown by a replay.
        mixes: of shares, as for `header`.

    Raises:
        StoreError: the file cannot be written.
        UsageError: it exists, and is not a recording.
    """

    def __init__(
        self,
        store: Answers,
        file: str | Path,
        denoisers: Mapping[str, str] | None = None,
        mixes: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = store
        self._path = expanded(file)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._synced = 0.0
        try:
            self._file = os.open(
                self._path,
                os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0),
                0o666,
            )
        except (OSError, ValueError) as error:  # a ValueError: no file has such a name
            raise self._failed(error) from error
        try:
            self._known, self._torn = self._continue()
            self._append(header(denoisers, mixes))
        except BaseException:
            os.close(self._file)
            raise

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what the store has, and record it if it is not recorded yet."""
        outcome = self._store.get(key)
        if outcome is not None and key not in self._known:
            self._record(key, self._store.row(key))
        return outcome

    def get_all(self, keys: Sequence[str]) -> dict[str, Answer | PermanentError]:
        """Return what the store has of `keys`, and record what is not recorded yet."""
        found = self._store.get_all(keys)
        for key in found:
            if key not in self._known:
                self._record(key, self._store.row(key))
        return found

    def put(self, *answers: StoredAnswer) -> None:
        """Store answers, then record them."""
        self._store.put(*answers)
        for kept in answers:
            self._record(kept.key or answer_key(kept.asked), kept.row())

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Record that nothing was answered: a vote of this run, though not of later ones."""
        self._store.give_up(asked, why)
        self._record(answer_key(asked), answer_row(asked, PermanentError(why), gave_up=True))

    def row(self, key: str) -> dict[str, Any]:
        """Return a stored answer with what was asked."""
        return self._store.row(key)

    def seen(self, provider: str, identity: Mapping[str, object]) -> Seen:
        """Return what stored answers hold."""
        return self._store.seen(provider, identity)

    def close(self) -> None:
        """End the recording; the store stays open. A child of a fork leaves it to the parent."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._sync()
            os.close(self._file)

    def _record(self, key: str, row: Mapping[str, Any]) -> None:
        self._append(to_line(row))
        with self._lock:
            self._known.add(key)

    def _append(self, line: str) -> None:
        refuse_fork(self._process)
        data = line.encode()
        with self._lock:
            try:
                if self._torn:
                    data = b"\n" + data
                self._torn = True
                while data:  # one write, unless the disk is nearly full
                    data = data[os.write(self._file, data) :]
                self._torn = False
                if time.monotonic() - self._synced > _SYNC:
                    self._sync()
            except OSError as error:
                raise self._failed(error) from error

    def _sync(self) -> None:
        with suppress(OSError):  # not every file system can
            os.fsync(self._file)
        self._synced = time.monotonic()

    def _continue(self) -> tuple[set[str], bool]:
        """Return the keys that the file has already, and whether its last line was cut off."""
        facts = os.fstat(self._file)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"record={str(self._path)!r} is not a file that can be continued.")
        if not facts.st_size:
            return set(), False
        known = {answer_key(row["asked"]) for row in _rows(self._path) if not is_header(row)}
        os.lseek(self._file, -1, os.SEEK_END)
        return known, os.read(self._file, 1) != b"\n"

    def _failed(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or error
        return StoreError(
            f"The recording {str(self._path)!r} cannot be written: {reason}. What "
            "was answered so far is in the store; the same call, recorded elsewhere, writes it."
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who gave recorded answers, and to what: all of one certificate have the same.

    Attributes:
        provider: the adapter's name.
        identity: its identity, as JSON text.
        codec: how variants were encoded.
        noise: public id of the noise key, "" if only plain labels are recorded.
        denoiser: fingerprint of the denoiser, "" likewise.
    """

    provider: str
    identity: str
    codec: str
    noise: str = ""
    denoiser: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Provenance:
        """Return the source of an answer to `asked`."""
        if not isinstance(asked["identity"], dict):
            raise UsageError("what was asked has no identity of a provider")
        return cls(
            str(asked["provider"]),
            json.dumps(asked["identity"], sort_keys=True),
            str(asked.get("codec", "")),
            str(asked.get("noise", "")),
            str(asked.get("denoiser", "")),
        )

    def facts(self) -> dict[str, str]:
        """Return all by which it can be chosen."""
        identity = {str(key): str(value) for key, value in json.loads(self.identity).items()}
        own = {name: getattr(self, name) for name in ("provider", "codec", "noise", "denoiser")}
        return {**identity, **own}


class ReplayAdapter:
    """The adapter of a replay: has the recorded provider's name, and sends nothing."""

    limits = Limits(max_bytes=2**62, max_side=2**31)
    price = Price(Decimal(0))

    def __init__(self, source: Provenance) -> None:
        self.name = source.provider
        self.identity: dict[str, str | int | float | bool | None] = json.loads(source.identity)

    def ask(self, payloads: Sequence[bytes]) -> Sequence[Answer]:
        """Refuse."""
        del payloads
        raise FatalError("A replay sends nothing.", provider=self.name)

    def close(self) -> None:
        """Nothing to release."""


class Replay:
    """A recording, read as a store: answers what is in it, and says what is not.

    Args:
        text: the path of the recording, and after a "#" which of several sources to take:
            "answers.jsonl#provider=aws,denoiser=7a3f" (beginnings suffice).

    Raises:
        UsageError: it cannot be read, holds no answer, or has several sources and none, or more
            than one, was chosen.
    """

    def __init__(self, text: str) -> None:
        self.path, chosen = _split(text)
        self._rows: dict[str, dict[str, Any]] = {}
        names: dict[str, str] = {}
        self.mixes: Any = None  # of the last run; None if that was before there were any
        for row in _rows(self.path):
            if is_header(row):
                names.update({str(k): str(v) for k, v in dict(row["denoisers"]).items()})
                self.mixes = row.get("mixes")
            else:
                self._rows[answer_key(row["asked"])] = row
        # What was sent as it is, as a wrapped client does, is of no photo and no certificate.
        asked = [row["asked"] for row in self._rows.values() if "image" in row["asked"]]
        sources = {Provenance.of(each) for each in asked}
        # A plain label's source is part of a variant's: it counts where there is nothing else.
        voted = {source for source in sources if source.noise}
        self.source = _choose(voted or sources, chosen, self.path)
        self.adapter = ReplayAdapter(self.source)
        fingerprint = self.source.denoiser
        self.denoiser_name = names.get(fingerprint, fingerprint)

    @classmethod
    def of(cls, provider: str) -> Replay | None:
        """Return the replay that "replay:FILE" means; None if `provider` is an adapter's name."""
        return cls(provider.removeprefix(PREFIX)) if provider.startswith(PREFIX) else None

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered, or None if it is not recorded."""
        row = self._rows.get(key)
        return None if row is None else outcome_of(row)

    def get_all(self, keys: Sequence[str]) -> dict[str, Answer | PermanentError]:
        """Return what was answered to those of `keys` that are recorded."""
        return {key: outcome_of(self._rows[key]) for key in keys if key in self._rows}

    def row(self, key: str) -> dict[str, Any]:
        """Return an answer with what was asked."""
        return self._rows[key]

    def seen(self, provider: str, identity: Mapping[str, object]) -> Seen:
        """Return what recorded answers hold."""
        return seen_among(self._names, source_of(provider, identity))

    @cached_property
    def _names(self) -> set[SeenName]:
        return set().union(*map(names_in_row, self._rows.values()))

    def put(self, *answers: StoredAnswer) -> None:
        """Refuse: nothing is asked, so nothing is answered."""
        del answers
        raise StoreError("A replay keeps no answers.")

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Do nothing: a recording is not changed by its replay."""

    def close(self) -> None:
        """Nothing to release."""

    def missing(self, asked: Mapping[str, Any], photo: str) -> UsageError:
        """Return the error that says what of `asked` the recording does not have."""
        rows = (row["asked"] for row in self._rows.values())
        mine = [each for each in rows if "image" in each and self._is_of_source(each)]
        return UsageError(
            f"The recording {self.path.name!r} has no answer to what is asked about "
            f"{printable(photo)!r}: {_what_is_missing(mine, asked)}"
        )

    def _is_of_source(self, asked: Mapping[str, Any]) -> bool:
        source = Provenance.of(asked)
        plain = Provenance(self.source.provider, self.source.identity, self.source.codec)
        return source in (self.source, plain)


def _what_is_missing(recorded: list[Any], asked: Mapping[str, Any]) -> str:
    width, height = asked["size"]
    of_photo = [row for row in recorded if row["image"] == asked["image"]]
    if not of_photo:
        sizes = {tuple(row["size"]) for row in recorded}
        others = "" if (width, height) in sizes else (
            f" Recorded working images have {_some(f'{w} x {h}' for w, h in sorted(sizes))} "
            f"pixels; this one has {width} x {height}: give the size of the recorded run."
        )  # fmt: skip
        return f"nothing of this photo (working image {str(asked['image'])[:16]}...).{others}"
    if "plain" in asked:
        return "its plain label. Give plain=False (--no-plain), as the recorded run had it."
    of_sigma = [row for row in of_photo if row.get("sigma") == asked["sigma"]]
    if not of_sigma:
        sigmas = sorted({row["sigma"] for row in of_photo if "sigma" in row})
        return f"sigma {asked['sigma']:g}. It holds {_some(f'{s:g}' for s in sigmas) or 'none'}."
    indices = sorted(row["index"] for row in of_sigma)
    return (
        f"variant {asked['index']} at sigma {asked['sigma']:g}. It holds {len(indices)} variants, "
        f"{indices[0]} to {indices[-1]}: as many as the recorded run needed. Give the radius, "
        "alpha, max_votes and target of that run, or record a longer one."
    )


def _some(texts: Iterator[str], most: int = 5) -> str:
    listed = list(texts)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" * (len(listed) > most))


def _split(text: str) -> tuple[Path, dict[str, str]]:
    path, _, choice = text.rpartition("#")
    if not path or "=" not in choice or os.path.exists(expanded(text)):  # noqa: PTH110  never raises
        path, choice = text, ""
    pairs = (pair.partition("=") for pair in choice.split(",") if pair)
    return expanded(path), {name.strip(): value.strip() for name, _, value in pairs}


def _choose(sources: set[Provenance], chosen: Mapping[str, str], path: Path) -> Provenance:
    """Return the one source that fits what was chosen."""
    if not sources:
        raise UsageError(f"The recording {str(path)!r} holds no answers about a photo.")
    fitting = [
        source
        for source in sources
        if all(source.facts().get(name, "").startswith(value) for name, value in chosen.items())
        and chosen.keys() <= source.facts().keys()
    ]
    if len(fitting) == 1:
        return fitting[0]
    facts = [source.facts() for source in (fitting or sources)]
    differing = [
        name
        for name in sorted({name for each in facts for name in each})
        if len({each.get(name) for each in facts}) > 1 or not fitting
    ]
    kinds = sorted(
        ",".join(f"{name}={each.get(name, '')[:24]}" for name in differing) for each in facts
    )
    raise UsageError(
        f"The recording {str(path)!r} holds answers of {len(sources)} kinds, and one certificate "
        f"rests on one; {len(fitting)} fit what was chosen. Choose with {PREFIX}{path}#NAME=VALUE "
        f"one of: {printable(_some(iter(kinds)))}."
    )
