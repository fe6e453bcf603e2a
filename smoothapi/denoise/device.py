"""Which device and which precision; torch is imported only where the answer needs it."""

from __future__ import annotations

import logging
import platform
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from smoothapi.errors import DenoiserError, MissingExtraError
from smoothapi.files import file_of_package

DEVICES = "auto, cpu, cuda, cuda:N (for example cuda:1), mps"
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
_VERSION = re.compile(r"^__version__ = '(?P<version>[^']+)'", re.MULTILINE)
_logger = logging.getLogger("smoothapi")


def choose_device(spec: str) -> str:
    """The device that is used for a specification: `cpu`, `cuda:N` or `mps`.

    `auto` takes CUDA, then MPS, then the CPU. A CUDA or MPS that was asked for by name and is not
    there is replaced by the CPU with a warning on the logger `smoothapi`.

    Raises:
        DenoiserError: the string is not a device, or the machine has fewer CUDA devices.
    """
    check_device(spec)
    if spec == "cpu":
        return "cpu"
    if spec.startswith("cuda"):
        if not _cuda_count():
            _logger.warning(
                "The denoiser was asked to run on %r, but this machine or this build of torch has "
                "no CUDA; it runs on the CPU.",
                spec,
            )
            return "cpu"
        index = int(spec.partition(":")[2] or 0)
        if index >= _cuda_count():
            raise DenoiserError(
                f"The device {spec!r} does not exist: this machine has {_cuda_count()} CUDA "
                f"device(s), counted from 0. Choose one of {DEVICES}."
            )
        return f"cuda:{index}"
    if spec == "auto" and _cuda_count():
        return "cuda:0"
    if _has_mps():
        return "mps"
    if spec == "mps":
        _logger.warning(
            "The denoiser was asked to run on 'mps', which is not here; it runs on the CPU."
        )
    return "cpu"


def check_device(spec: str) -> None:
    """Refuse a string that does not name a device, before anything is loaded.

    Raises:
        DenoiserError: lists what would do.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", spec):
        raise DenoiserError(f"Unknown device {spec!r}. Choose one of {DEVICES}.")


def choose_precision(spec: str, device: str) -> str:
    """The precision of the convolutions: `bf16`, `fp16` or `fp32`.

    `auto` takes bf16 on processors with instructions for it (where it was measured to be twice as
    fast) and on CUDA from compute capability 8.0, fp16 on older CUDA devices and MPS, else fp32.

    Raises:
        DenoiserError: the string is not a precision, or fp16 was asked of a CPU.
    """
    check_precision(spec)
    kind = device.partition(":")[0]
    if spec == "fp16" and kind == "cpu":
        raise DenoiserError("fp16 does not run well on a CPU. Choose bf16, fp32 or auto.")
    if spec != "auto":
        return spec
    if kind == "cuda":
        import torch  # noqa: PLC0415

        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if kind == "mps":
        return "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def describe_card(device: str) -> str:
    """The model of a CUDA device and the version of cuDNN: with another, sums round otherwise."""
    import torch  # noqa: PLC0415

    version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{torch.cuda.get_device_name(device)}|cudnn {version}"


def check_precision(spec: str) -> None:
    """Refuse a string that does not name a precision, before anything is loaded.

    Raises:
        DenoiserError: lists what would do.
    """
    if spec not in PRECISIONS:
        raise DenoiserError(f"Unknown precision {spec!r}. Choose one of {', '.join(PRECISIONS)}.")


def require_torch(what: str = "The denoiser") -> None:
    """See that torch is installed, without importing it.

    Args:
        what: what needs it, for the error.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("torch") is None:
        raise MissingExtraError(
            f"{what} needs torch, which is not installed. Install it with: pip install "
            "'smoothapi-vision[local]'. Only to verify certificates, to plan and to read what is "
            "kept takes none, nor does denoiser='none'."
        )


@cache
def torch_version() -> str:
    """Return the version of torch, without importing it where that can be helped."""
    with suppress(OSError):
        found = _VERSION.search(file_of_package("torch/version.py").read_text(encoding="utf-8"))
        if found is not None:
            return found["version"]
    import torch  # noqa: PLC0415

    return str(torch.__version__)


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    try:
        flags = set(re.findall(r"\b(?:avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return False
    return bool(flags)


@cache
def _cuda_count() -> int:
    # Importing torch takes a second: it is not asked where the answer is plainly 0.
    if find_spec("torch") is None:
        return 0
    if platform.system() == "Darwin" or "+cpu" in torch_version():
        return 0
    if (
        platform.system() == "Linux"
        and not Path("/dev/nvidiactl").exists()
        and not _is_rocm_or_wsl()
    ):
        return 0
    import torch  # noqa: PLC0415

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _is_rocm_or_wsl() -> bool:
    return Path("/dev/kfd").exists() or Path("/dev/dxg").exists()


@cache
def _has_mps() -> bool:
    if platform.system() != "Darwin" or find_spec("torch") is None:
        return False
    import torch  # noqa: PLC0415

    return torch.backends.mps.is_available()
