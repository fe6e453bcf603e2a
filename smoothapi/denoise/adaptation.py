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
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from smoothapi.denoise.knobs import Knobs
from smoothapi.errors import DenoiserError, UsageError
from smoothapi.files import parse_json, replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
        with replacing(path) as stream:
            stream.write(json.dumps(data, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Adaptation:
        """Read and check an adaptation's file; the weights are not looked for.

        Raises:
            DenoiserError: it cannot be read, or is something else.
        """
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise DenoiserError(f"{path} is too large to be an adaptation of a denoiser.")
            data = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DenoiserError(
                f"The adapted denoiser {path} cannot be read ({error}). Give a file that "
                "`smoothapi denoiser adapt` wrote."
            ) from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise DenoiserError(
                f"{path} is not an adapted denoiser (its schema is not {SCHEMA!r}). Give a "
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
            raise DenoiserError(f"The adapted denoiser {path} is damaged: a digest is malformed.")
        return made
