"""Many photos on the command line: found, certified several at once, and written down."""

from __future__ import annotations

import hashlib
import sys
from itertools import chain, islice
from typing import TYPE_CHECKING

from smoothapi.certify import Top1
from smoothapi.cli.bars import progress_of_many
from smoothapi.cli.errors import report
from smoothapi.cli.terminal import echo
from smoothapi.errors import SmoothAPIError
from smoothapi.files import canonical_json
from smoothapi.image import check_readable
from smoothapi.photos.fetching import is_remote
from smoothapi.photos.finding import FoundPhoto, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from smoothapi.certify import Certificate
    from smoothapi.history import RunLog
    from smoothapi.many import ManyProgress, PhotoResult
    from smoothapi.many.files import Held, ResultFile
    from smoothapi.photos import Fetcher
    from smoothapi.session import Session

ABSTAINED = 1
STDIN = "-"
_MOST_COUNTED = 100_000  # photos; to count more would take longer than the number is worth
_MOST_SHOWN = 20  # tables of single photos


class NamedPhotos:
    """The photos that a command names.

    Args:
        named: as they stand on the command line.
        fetcher: of those that are elsewhere.
    """

    def __init__(self, named: tuple[str, ...], fetcher: Fetcher) -> None:
        self._named = named
        self._fetcher = fetcher

    def __iter__(self) -> Iterator[FoundPhoto]:
        for name in self._named:
            if name == STDIN:
                yield FoundPhoto(STDIN, sys.stdin.buffer)
            else:
                yield from find(name, self._fetcher)

    @property
    def one_by_one(self) -> bool:
        """Whether each is named, so that an error about one is reported before anything is paid."""
        return all(map(_is_file, self._named))

    def looked_for(self) -> tuple[Iterator[FoundPhoto], list[FoundPhoto] | None]:
        """Return them, looked for once, and as a list; None for the list of a great many.

        Raises:
            ImageError: as finding them.
        """
        rest = iter(self)
        found = list(islice(rest, _MOST_COUNTED + 1))
        return chain(found, rest), None if len(found) > _MOST_COUNTED else found

    def check(self, *, as_json: bool) -> int:
        """Report each file that cannot be read; return the exit code, 0 if all can."""
        code = 0
        for name in filter(_is_file, self._named):
            try:
                if name != STDIN:
                    check_readable(name)
            except SmoothAPIError as error:
                report(error, as_json=as_json, photo=name)
                code = error.exit_code
        return code


def _is_file(name: str) -> bool:
    """Whether a name is that of one file, or of standard input."""
    if name == STDIN:
        return True
    import glob  # noqa: PLC0415
    import os  # noqa: PLC0415

    if is_remote(name) or os.path.isdir(name):  # noqa: PTH112
        return False
    return os.path.lexists(name) or not glob.has_magic(name)


class Outcomes:
    """What the photos of a command came to; tells the exit code."""

    def __init__(self) -> None:
        self.counts = {"certified": 0, "abstained": 0, "failed": 0}
        self.kept = 0
        self.enough = True
        self.worst = 0

    def keep(self, held: Held) -> None:
        """Count what an earlier run came to."""
        self.counts[held.outcome] += 1
        self.kept += 1
        self.enough = self.enough and held.accepted

    def take(self, result: PhotoResult, *, enough: bool) -> None:
        """Count a result."""
        self.counts[result.outcome] += 1
        if result.error is not None:
            self.worst = max(self.worst, result.error.exit_code)
        self.enough = self.enough and enough

    @property
    def code(self) -> int:
        """What failed decides, then what is not certified."""
        return self.worst or (0 if self.enough else ABSTAINED)


def run(
    certify_many: Callable[..., Iterator[PhotoResult]],
    photos: NamedPhotos,
    *,
    session: Session,
    as_json: bool,
    file: ResultFile | None,
    is_enough: Callable[[Certificate, str], bool],
    as_text: Callable[[Certificate], str],
    log: RunLog,
) -> int:
    """Run many photos and show what each comes to; return the exit code.

    Args:
        certify_many: returns the results of photos, and takes `on_progress`.
        photos: which.
        session: who is asked.
        as_json: whether stdout has a line of JSON for each.
        file: where results are written; None for nowhere.
        is_enough: whether a certificate is what was asked for.
        as_text: of a certificate, as JSON.
        log: where each is written down.
    """
    found, listed = photos.looked_for()
    total = None if listed is None else len(listed)
    outcomes = Outcomes()
    wanted = _Wanted(None if session.refresh else file, outcomes)
    left = None if listed is None else sum(wanted.held(photo) is None for photo in listed)
    spent = None
    told: SmoothAPIError | None = None
    try:
        with progress_of_many(left, session) as advance:

            def note(state: ManyProgress) -> None:
                nonlocal spent
                spent = state
                advance(state)

            # What has ended is written at once, though one before it has not.
            results = certify_many(wanted.of(found), in_order=file is None, on_progress=note)
            for result in results:
                certificate = result.certificate
                enough = certificate is None or is_enough(certificate, result.photo)
                if file is not None:
                    file.write(result, accepted=None if certificate is None else enough)
                _show(result, session, as_json=as_json, total=total, as_text=as_text,
                      quiet=file is not None)  # fmt: skip
                outcomes.take(result, enough=enough)
                _write_down(result, log)
                told = result.error
    except SmoothAPIError as error:
        if error is not told:
            raise
        log.end_by(error)
    finally:
        if spent is not None:
            log.spent(spent.attempts, spent.cached, spent.cost)
        if spent is not None or outcomes.kept:
            _show_summary(outcomes.counts, outcomes.kept, total, spent, err=as_json)
    return outcomes.code


class _Wanted:
    """The photos of which a file of results has none that counts.

    Args:
        file: the file, None if there is none to be gone on with.
        outcomes: what counts those that it has.
    """

    def __init__(self, file: ResultFile | None, outcomes: Outcomes) -> None:
        self._file = file
        self._outcomes = outcomes

    def held(self, photo: FoundPhoto) -> Held | None:
        """Return what the file has of a photo."""
        return None if self._file is None else self._file.held(photo)

    def of(self, found: Iterator[FoundPhoto]) -> Iterator[FoundPhoto]:
        """Yield those of some photos, and count the others."""
        for photo in found:
            if (already := self.held(photo)) is None:
                yield photo
                continue
            self._outcomes.keep(already)
            if already.outcome == "certified" and not already.accepted:
                echo(f"{photo.name}: certified, but not as --accept-radius says.", err=True)


def _write_down(result: PhotoResult, log: RunLog) -> None:
    if result.certificate is not None:
        log.certificate(result.photo, result.certificate)
    elif result.error is not None:
        log.failure(result.photo, result.error)


def _show(
    result: PhotoResult,
    session: Session,
    *,
    as_json: bool,
    total: int | None,
    as_text: Callable[[Certificate], str],
    quiet: bool,
) -> None:
    if result.certificate is None:
        assert result.error is not None  # noqa: S101
        report(result.error, as_json=as_json, photo=result.photo)
    elif as_json:
        echo(as_text(result.certificate))
    elif quiet:
        return
    else:
        from smoothapi.cli import output  # noqa: PLC0415  which JSON does without

        if total is not None and total <= _MOST_SHOWN:
            output.show_certificate(result.certificate, session.price)
        else:
            output.show_line(result.photo, result.certificate)


def _show_summary(
    counts: Mapping[str, int],
    kept: int,
    total: int | None,
    spent: ManyProgress | None,
    *,
    err: bool,
) -> None:
    """Print what many photos came to: counts by outcome, how many not, and what this run spent."""
    ended = sum(counts.values())
    parts = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    said = f"{ended:,} photo{'' if ended == 1 else 's'}: {parts}."
    if kept:
        said += f" {kept:,} {'was' if kept == 1 else 'were'} in the file."
    if total is not None and ended < total:
        said += f" {total - ended:,} more came to no end."
    echo(said, err=err)
    if spent is not None:
        echo(
            f"Sent now: {spent.queries:,} queries (${spent.cost:.4f}); {spent.cached:,} answers "
            f"from the store; {spent.seconds:.1f} s.",
            err=err,
        )


def settings_digest(session: Session, **asked: object) -> str:
    """Return what tells results of these settings from those of others.

    Args:
        session: who is asked.
        asked: what was, besides.
    """
    settings, variants = session.settings, session.variants
    told = {
        "provider": variants.adapter.name,
        "identity": dict(variants.adapter.identity),
        "denoiser": variants.denoiser.fingerprint,
        "noise": variants.noise_key,
        "sigma": session.sigma,
        "alpha": settings.alpha,
        "max_votes": settings.max_votes,
        "codec": settings.codec,
        "size": session.size,
        "radius": settings.radius,
        "plain": settings.plain,
        "labels": Top1(session.space).description,
        **asked,
    }
    return hashlib.sha256(canonical_json(told)).hexdigest()[:16]
