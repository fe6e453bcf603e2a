"""Where denoisers come from: each is named at once, and opened when it is first needed."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Protocol

from smoothapi.denoise.knobs import NEUTRAL, Knobs
from smoothapi.denoise.storage import (
    SHIPPED,
    Header,
    load_network,
    read_header,
    read_model_card,
    read_shipped_header,
)
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from smoothapi.denoise.adaptation import Adaptation


class Source(Protocol):
    """What a runtime is made from."""

    name: str
    identity: str
    wants_half: bool
    """Whether `auto` may choose a 16-bit precision."""
    reentrant: bool
    """Whether several threads may call it at once."""
    ours: bool
    """Whether it is a network of smoothapi's, of which all is known that it does."""
    knobs: Knobs
    """What the runtime does to the output."""
    adaptation: Adaptation | None
    """The provider's answers that had a part in it; None if none had."""

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises."""
        ...


class File:
    """Weights on disk."""

    wants_half = True
    reentrant = True
    ours = True
    knobs: Knobs = NEUTRAL
    adaptation: Adaptation | None = None

    def __init__(self, header: Header, name: str | None) -> None:
        self._header = header
        self.sha256 = header.sha256
        self.name = name or f"{header.path.stem}@{header.sha256[:8]}"
        self.identity = "|".join(
            (header.architecture, json.dumps(header.config, sort_keys=True), header.sha256)
        )

    @classmethod
    def shipped(cls, which: str, name: str | None) -> File:
        """Return weights that ship: one of `storage.SHIPPED`.

        Raises:
            DenoiserError: the installation is damaged. That they are not those that their model
                card names is said when they are opened.
        """
        card = read_model_card(which)
        return cls(read_shipped_header(card), name or card.name)

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises."""
        return load_network(self._header)


class Module:
    """A torch module of the user's, copied: the original keeps its mode, device and gradients."""

    wants_half = False
    reentrant = False
    ours = False
    knobs: Knobs = NEUTRAL
    adaptation: Adaptation | None = None

    def __init__(self, module: torch.nn.Module, name: str | None) -> None:
        self._module: torch.nn.Module = copy.deepcopy(module)
        kind = type(module)
        self.name = name or kind.__name__
        digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}|{name}|{module!r}".encode())
        for key, value in self._module.state_dict().items():
            digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}".encode())
            # As bytes, since numpy has no bfloat16.
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(_uint8()).numpy().tobytes())
        own = getattr(module, "fingerprint", None)
        if not name and not (isinstance(own, str) and own):
            # What a module does also depends on its code and its plain attributes, which nothing
            # here sees. So without a name its answers serve this object alone, not later runs.
            own = secrets.token_hex(8)
        self.identity = f"module|{own or ''}|{digest.hexdigest()}"

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises."""
        return self._module


class Function:
    """Any other callable: it cannot be hashed, so the caller says what it is."""

    wants_half = False
    reentrant = False
    ours = False
    knobs: Knobs = NEUTRAL
    adaptation: Adaptation | None = None

    def __init__(self, function: Callable[..., torch.Tensor], name: str | None) -> None:
        own = getattr(function, "fingerprint", None)
        if not name and not (isinstance(own, str) and own):
            raise UsageError(
                "A function as denoiser needs a name: answers are cached under it, and with no "
                "name the answers of another function would be taken for its own. Give "
                "name='my-denoiser-2', changed whenever the function changes, or set an attribute "
                "`fingerprint`."
            )
        self._function = function
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.identity = f"function|{name or ''}|{own or ''}"

    def open(self) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """Return what denoises."""
        return self._function


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
    from smoothapi.denoise.adaptation import Adaptation  # noqa: PLC0415  few are adapted

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


def _uint8() -> torch.dtype:
    import torch  # noqa: PLC0415

    return torch.uint8
