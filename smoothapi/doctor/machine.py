"""Python and the packages."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import TYPE_CHECKING

from smoothapi._version import __version__
from smoothapi.doctor.result import CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator

_DISTRIBUTION = "smoothapi-vision"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def examine() -> Iterator[CheckResult]:
    """Yield Python's version, and those of smoothapi and of what it cannot do without."""
    yield CheckResult(
        "python",
        "ok",
        f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}",
    )
    yield _packages()


def _packages() -> CheckResult:
    try:
        needs = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return CheckResult(
            "packages",
            "warning",
            f"smoothapi {__version__}, whose metadata (*.dist-info) is gone",
            "Adapters of other packages cannot be found by name. Install smoothapi-vision anew, or "
            "give adapters as objects.",
        )
    names = [found[0] for need in needs if "extra ==" not in need and (found := _NAME.match(need))]
    missing = [name for name in names if _version(name) is None]
    if _version("torch") is not None:  # of an extra, so never missing here: the denoiser says so
        names.append("torch")
    versions = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
    said = f"smoothapi {__version__}; {versions}"
    if not missing:
        return CheckResult("packages", "ok", said)
    return CheckResult(
        "packages",
        "problem",
        f"{said}; not installed: {', '.join(missing)}",
        f"Install them with: pip install {' '.join(missing)}",
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
