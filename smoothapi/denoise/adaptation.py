"""A denoiser adapted to one provider: a small file beside the weights that it is based on.

The file names the weights by their SHA-256 and holds the knobs that the provider's own answers
chose, and the digests of the photos that they were answers about. An adapted denoiser is another
denoiser: its fingerprint is made of all three, and certificates name it
"smoothapi-unet-2.0+aws-3f2a".

Why the photos are part of it: a setting that was chosen since it did well under certain noise
must not be certified by that same noise, or its votes would count twice. For these photos an
adapted denoiser's noise is therefore drawn from a stream of its own (`smoothapi.variants`), of
which no answer was seen when the setting was chosen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.knobs import Knobs
from smoothapi.denoise.sources import File
from smoothapi.denoise.storage import SHIPPED, read_header
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from smoothapi.denoise.sources import Source

SCHEMA = "smoothapi.denoiser-adaptation/1"
_LARGEST_FILE = 64 << 20
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What makes an adapted denoiser of some weights.

    Attributes:
        weights: "default", "small", or the path of a .safetensors file; relative to the
            adaptation's file.
        sha256: of the weights file, in hexadecimal.
        knobs: the chosen setting.
        provider: whose answers chose it.
        sigma: the noise level that it was chosen at.
        photos: digests of the working images whose answers had a part in it.
        about: how it was made, and what it reached; free form.
    """

    weights: str
    sha256: str
    knobs: Knobs
    provider: str
    sigma: float
    photos: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of all that decides a variant: weights, knobs, and whose noise is apart."""
        parts = (self.sha256, asdict(self.knobs), sorted(self.photos))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it, so that a kill leaves the old file or the new one, never half of one."""
        data = {
            "schema": SCHEMA,
            "weights": {"file": self.weights, "sha256": self.sha256},
            "knobs": asdict(self.knobs),
            "provider": self.provider,
            "sigma": self.sigma,
            "photos": sorted(self.photos),
            "about": dict(self.about),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)  # noqa: PTH105 - the atomic one, by its usual name

    @classmethod
    def read(cls, path: Path) -> Adaptation:
        """Read and check an adaptation's file; the weights are not looked for.

        Raises:
            DenoiserError: it cannot be read, or is something else.
        """
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise DenoiserError(f"{path} is too large to be an adaptation of a denoiser.")
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DenoiserError(
                f"The adapted denoiser {path} cannot be read ({error}). Give a file that "
                "`smoothapi denoiser adapt` wrote."
            ) from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise DenoiserError(
                f"{path} is no adaptation of a denoiser (its schema is not {SCHEMA!r}). Give a "
                "file that `smoothapi denoiser adapt` wrote."
            )
        try:
            photos = frozenset(str(digest) for digest in data["photos"])
            made = cls(
                weights=str(data["weights"]["file"]),
                sha256=str(data["weights"]["sha256"]),
                knobs=Knobs(**{name: float(v) for name, v in data["knobs"].items()}),
                provider=str(data["provider"]),
                sigma=float(data["sigma"]),
                photos=photos,
                about=dict(data["about"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise DenoiserError(f"The adapted denoiser {path} is damaged: {error!r}.") from error
        if not all(_DIGEST.fullmatch(digest) for digest in (*photos, made.sha256)):
            raise DenoiserError(f"The adapted denoiser {path} is damaged: a digest is not one.")
        return made


class Tuned:
    """A source whose output goes through knobs, which are part of what it is.

    Args:
        inner: what denoises.
        knobs: what is done to its output.
        adaptation: the file that said so; None for a setting that is only tried.
        name: for reports; by default the inner one's, and what was adapted to.
    """

    def __init__(
        self,
        inner: Source,
        knobs: Knobs,
        *,
        adaptation: Adaptation | None = None,
        name: str | None = None,
    ) -> None:
        self._inner = inner
        self.knobs = knobs
        self.adaptation = adaptation
        self.wants_half, self.reentrant, self.ours = inner.wants_half, inner.reentrant, inner.ours
        if adaptation is None:
            self.identity = f"{inner.identity}|knobs {knobs.blend!r} {knobs.sharpen!r}"
            self.name = name or inner.name
        else:
            self.identity = f"{inner.identity}|adapted {adaptation.identity}"
            short = re.sub(r"[^\w.-]+", "-", adaptation.provider)
            self.name = name or f"{inner.name}+{short}-{adaptation.identity[:4]}"

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises; the runtime puts the knobs behind it."""
        return self._inner.open()


class Shared:
    """A source that is opened once, for all settings that are tried on it."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self._opened: Callable[[torch.Tensor, float], torch.Tensor] | None = None
        self.name, self.identity = inner.name, inner.identity
        self.wants_half, self.reentrant, self.ours = inner.wants_half, inner.reentrant, inner.ours
        self.knobs, self.adaptation = inner.knobs, inner.adaptation

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises, always the same."""
        if self._opened is None:
            self._opened = self._inner.open()
        return self._opened


def adapted(path: Path, name: str | None = None) -> Source:
    """Return the source that an adaptation's file describes.

    Neutral knobs that no answer had a part in are the weights themselves: then it is their own
    source, with their name and fingerprint.

    Raises:
        DenoiserError: the file is damaged, or the weights are not those that it was made for.
    """
    adaptation = Adaptation.read(path)
    shipped = adaptation.weights in SHIPPED
    inner = (
        File.shipped(adaptation.weights, None)
        if shipped
        else File(read_header(path.parent / adaptation.weights), None)
    )
    if inner.sha256 != adaptation.sha256:
        which = f"the weights {adaptation.weights!r}"
        raise DenoiserError(
            f"{path.name} was adapted for weights with the SHA-256 {adaptation.sha256[:16]}..., "
            f"but {which} have {inner.sha256[:16]}... now. What suits one network need not suit "
            "another: run `smoothapi denoiser adapt` again."
        )
    if adaptation.knobs.neutral and not adaptation.photos:
        return inner
    return Tuned(inner, adaptation.knobs, adaptation=adaptation, name=name)
