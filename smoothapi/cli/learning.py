"""`smoothapi plan --learn`: how sure the labeller was of past photos, to give runs up by."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

from smoothapi.cli.terminal import echo
from smoothapi.errors import StoreError, UnreachableRadiusError, UsageError
from smoothapi.files import parse_json
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from smoothapi.answer import Answer
    from smoothapi.certify.futility import Futility, Mix
    from smoothapi.errors import PermanentError
    from smoothapi.mixes import Deployment, PastPhoto
    from smoothapi.settings import Settings
    from smoothapi.store import Store


def learn(settings: Settings, files: Sequence[Path], *, as_json: bool) -> int:
    """Learn the mixes of the home's past photos and of files, keep them, and say what they are."""
    from smoothapi.mixes import Mixes, past_photos  # noqa: PLC0415
    from smoothapi.parts import choose_label_space  # noqa: PLC0415
    from smoothapi.store import open_home  # noqa: PLC0415

    space = choose_label_space(None, settings.classes)
    studied: list[PastPhoto] = []
    recordings: list[Path] = []
    for file in files:
        found = _of_study(file)
        if found is None:
            recordings.append(file)
        else:
            studied += found
    with closing(open_home(settings.home, settings.noise_key_file)) as home:
        photos = past_photos(_answers(home, recordings), space) + studied
        if not photos:
            raise UsageError(
                f"No answer about a variant is stored in {str(settings.home)!r}, nor in a file "
                "given with --from: certify some photos first."
            )
        mixes = Mixes.learnt(photos)
        mixes.save(home)
        kept = str(settings.home)
    rows = [_row(each, mix, settings) for each, mix in mixes.by_deployment.items()]
    if as_json:
        echo(json.dumps({"schema": "smoothapi.learnt/1", "file": kept, "mixes": rows}))
        return 0
    for row in rows:
        echo(
            f"{printable(row['provider'])}, denoiser {printable(row['denoiser'])[:12]}, sigma "
            f"{row['sigma']:g}, size {row['size']}, "
            f"{'classes ' + row['classes'][:8] if row['classes'] else 'its own labels'}, options "
            f"{row['options'][:8]}: {row['photos']:,} photos, mean share {row['mean_share']:.2f}"
        )
        if row["queries"] is not None:
            echo(
                f"  expected a photo: {row['queries']:.1f} queries instead of "
                f"{row['queries_before']:.1f}, certified {row['certified']:.1%} instead of "
                f"{row['certified_before']:.1%}"
            )
    echo(f"Kept in {printable(kept)}. Nothing was sent.")
    return 0


def _answers(
    store: Store, recordings: Sequence[Path]
) -> Iterator[tuple[Mapping[str, Any], Answer | PermanentError]]:
    from smoothapi.store.recording import read_recording  # noqa: PLC0415
    from smoothapi.store.rows import outcome_of  # noqa: PLC0415

    for _, row in store.answers.scan():
        if not isinstance(row, StoreError):  # what cannot be read any more counts as never asked
            yield row["asked"], outcome_of(row)
    for file in recordings:
        for row, outcome in read_recording(file):
            yield row["asked"], outcome


def _of_study(file: Path) -> list[PastPhoto] | None:
    """Return what a study's result counted; None if the file is none."""
    from smoothapi.certify import parse_target  # noqa: PLC0415
    from smoothapi.mixes import Deployment, PastPhoto  # noqa: PLC0415
    from smoothapi.study.findings import Findings  # noqa: PLC0415

    try:
        data = parse_json(file.read_bytes())
    except ValueError:
        return None
    except OSError as error:
        raise UsageError(f"Cannot read {str(file)!r}: {error.strerror}.") from error
    if not str(data.get("schema", "") if isinstance(data, dict) else "").startswith(
        "smoothapi.study/"
    ):
        return None
    findings = Findings.from_dict(data)
    fingerprints = {each.name: each.fingerprint for each in findings.denoisers}
    identities = {each.name: each.identity for each in findings.providers}
    space = getattr(parse_target(findings.target), "space", None)
    return [
        PastPhoto(
            Deployment.of(
                provider=cell.provider,
                identity=identities[cell.provider],
                denoiser=fingerprints[cell.denoiser],
                sigma=cell.sigma,
                size=findings.size,
                space=space,
            ),
            *cell.share,
        )
        for cell in findings.cells
        if cell.votes
    ]


def _row(deployment: Deployment, mix: Mix, settings: Settings) -> dict[str, Any]:
    """Return what was learnt, and what it makes of the settings' radius and cap."""
    from smoothapi.certify.futility import DEFAULT_RULE, PriceRule  # noqa: PLC0415

    rules = (DEFAULT_RULE, PriceRule(mix))
    before, now = (_expected(mix, rule, deployment.sigma, settings) for rule in rules)
    return {
        "provider": deployment.provider,
        "denoiser": deployment.denoiser,
        "sigma": deployment.sigma,
        "options": deployment.options,
        "size": deployment.size,
        "classes": deployment.classes,
        "photos": mix.photos,
        "mean_share": sum(p * w for p, w in zip(mix.shares, mix.weights, strict=True)),
        "digest": mix.digest,
        "queries": now[0],
        "queries_before": before[0],
        "certified": now[1],
        "certified_before": before[1],
    }


def _expected(
    mix: Mix, rule: Futility, sigma: float, settings: Settings
) -> tuple[float | None, float | None]:
    """Return (mean queries, share certified) of a mix; None where no one radius is wanted."""
    from smoothapi.certify import queries_needed, share_deduction  # noqa: PLC0415

    if not isinstance(settings.radius, float):
        return None, None
    delta = share_deduction(3 * settings.size**2, sigma)
    mean = certified = 0.0
    try:
        for p, weight in zip(mix.shares, mix.weights, strict=True):
            count = queries_needed(
                settings.radius,
                sigma,
                settings.alpha,
                p,
                max_votes=settings.max_votes,
                delta=delta,
                futility=rule,
                final=settings.final,
            )
            mean += weight * count.mean
            certified += weight * count.certified
    except UnreachableRadiusError:
        return None, None
    return mean, certified
