"""Where denoisers come from: each is named at once, and opened when it is first needed."""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Protocol

from smoothapi.denoise.knobs import NEUTRAL, Knobs
from smoothapi.denoise.storage import Header, load_network, read_card, read_header
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

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
            DenoiserError: they are not those that their model card names.
        """
        card = read_card(which)
        header = read_header(card.path)
        if header.sha256 != card.sha256:
            raise DenoiserError(
                f"The shipped weights {card.path.name} have the SHA-256 {header.sha256[:16]}..., "
                f"but their model card says {card.sha256[:16]}...: the installation is damaged. "
                "Install smoothapi-vision again."
            )
        return cls(header, name or card.name)

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


def _uint8() -> torch.dtype:
    import torch  # noqa: PLC0415

    return torch.uint8
