"""Weights on disk: safetensors only, with a header that says what they are weights of.

Headers and hashes are read without torch, so that a denoiser can be named and fingerprinted
before it is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.errors import DenoiserError
from smoothapi.files import parse_json, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

FORMAT = "smoothapi-denoiser-1"
_LENGTH = struct.Struct("<Q")  # of the header, with which a safetensors file begins
_LARGEST_HEADER = 4 << 20
_SMALL = 1024  # of a number in a header: no network of so many parts takes long to lay out
_PICKLES = frozenset({".pt", ".pth", ".tar", ".ckpt", ".bin", ".pkl", ".pickle"})


@dataclass(frozen=True, slots=True)
class Header:
    """What a weights file says of itself.

    Attributes:
        path: the file.
        sha256: of the whole file, in hexadecimal.
        architecture: a name that `networks.build` knows.
        config: what `networks.build` needs beside the name.
        about: how the weights were made; free form.
        ships: whether the weights come with the package.
    """

    path: Path
    sha256: str
    architecture: str
    config: dict[str, Any]
    about: dict[str, Any]
    ships: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the model card says of the weights that ship.

    Attributes:
        path: the weights file.
        name: for reports and certificates.
        sha256: of the file, in hexadecimal.
    """

    path: Path
    name: str
    sha256: str


SHIPPED = ("default", "small")
"""The denoisers that come along, by the name that chooses one; each has a card of that name."""


def read_model_card(which: str = "default", folder: Path | None = None) -> ModelCard:
    """The model card of shipped weights.

    Args:
        which: one of `SHIPPED`.
        folder: where the cards are, if not in the package.

    Raises:
        DenoiserError: it is missing or damaged.
    """
    folder = folder or Path(__file__).with_name("weights")
    try:
        card = json.loads((folder / f"{which}.json").read_text(encoding="utf-8"))
        return ModelCard(folder / card["file"], card["name"], card["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DenoiserError(
            f"The shipped denoiser's model card cannot be read ({error!r}): the installation is "
            "damaged. Install smoothapi-vision again, or name a weights file of your own."
        ) from error


def read_header(path: Path) -> Header:
    """Read and check the header of a weights file, and hash the file; without torch.

    Raises:
        DenoiserError: no such file, a pickle, not safetensors, cut short, not of this package.
    """
    path = Path(path)
    refuse_pickle(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        raise _unreadable(path, error) from error
    metadata = _metadata(path, content, len(content))
    return _header(path, metadata, hashlib.sha256(content).hexdigest())


def read_shipped_header(card: ModelCard) -> Header:
    """Read and check the header of weights that ship; without torch.

    The card says what SHA-256 they have, and `load_network` takes no other file. So they are not
    hashed here: a run that is answered from the store would wait for 30 MB that it does not use.

    Raises:
        DenoiserError: they are missing, cut short, or no weights of this package.
    """
    try:
        with card.path.open("rb") as file:
            start = file.read(_LENGTH.size)
            if len(start) == _LENGTH.size:
                start += file.read(min(*_LENGTH.unpack(start), _LARGEST_HEADER))
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _unreadable(card.path, error) from error
    return _header(card.path, _metadata(card.path, start, size), card.sha256, ships=True)


def _unreadable(path: Path, error: OSError | ValueError) -> DenoiserError:
    reason = error.strerror if isinstance(error, OSError) else None
    return DenoiserError(
        f"The denoiser's weights {path} cannot be read: {reason or error}. Give "
        "'default', 'small', 'none', or the path of a .safetensors file."
    )


def _header(path: Path, metadata: Mapping[str, str], sha256: str, *, ships: bool = False) -> Header:
    if metadata.get("format") != FORMAT:
        raise DenoiserError(
            f"{path} is safetensors, but not a denoiser of smoothapi (its header lacks the format "
            f"{FORMAT!r}). Load it into a torch module of your own and pass that, or write it with "
            "`smoothapi denoiser train` or `smoothapi denoiser convert`."
        )
    try:
        config, about = (parse_json(metadata.get(name, "{}")) for name in ("config", "about"))
        if not isinstance(config, dict) or not isinstance(about, dict):
            raise DenoiserError(f"The header of {path} is damaged: its config is no object.")
        return Header(path, sha256, metadata["architecture"], config, about, ships)
    except (KeyError, ValueError) as error:
        raise DenoiserError(f"The header of {path} is damaged: {error!r}.") from error


def refuse_pickle(path: Path) -> None:
    """Refuse file types that can run code when they are read.

    Raises:
        DenoiserError: by its name or its first bytes, the file is a pickle or an archive of one.
    """
    start = b""
    with suppress(OSError, ValueError):  # whoever reads it next says why it cannot be
        if path.is_file():
            with path.open("rb") as stream:
                start = stream.read(9)
    # A zip is what torch.save writes now, 0x80 starts a bare pickle, as it wrote before. It may
    # also be the last digit of a header's length: then a brace follows the eight bytes.
    bare = start[:1] == b"\x80" and start[8:9] != b"{"
    if path.suffix.lower() in _PICKLES or start[:4] == b"PK\x03\x04" or bare:
        raise DenoiserError(
            f"{path.name} is a pickle, which can run any code when it is read. Weights are read "
            "from safetensors only: `smoothapi denoiser convert FROM TO.safetensors` turns a "
            "checkpoint of the paper's DnCNN into one, reading tensors and nothing else."
        )


def load_network(header: Header) -> nn.Module:
    """The network of a weights file, on the CPU, float32, in eval mode.

    Raises:
        DenoiserError: the file changed since its header was read, or is not what ships, or the
            tensors do not fit.
    """
    import torch  # noqa: PLC0415 - only when a network is really needed

    from smoothapi.denoise.checkpoints import fitting  # noqa: PLC0415
    from smoothapi.denoise.networks import build  # noqa: PLC0415

    content = header.path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != header.sha256:
        raise _damaged(header, sha256) if header.ships else _changed(header)
    tensors = {
        k: v.float() if v.is_floating_point() else v for k, v in _loaded(header.path, content)
    }
    most = max([len(tensors), *(side for value in tensors.values() for side in value.shape)])
    if max(_whole_numbers(header.config), default=0) > max(most, _SMALL):
        raise _too_large(header)
    try:
        with torch.device("meta"):  # without memory: the header may ask for more than there is
            asked = build(header.architecture, header.config).state_dict()
        state = fitting(asked, tensors, header.path)
        network = build(header.architecture, header.config)
        network.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DenoiserError(
            f"The tensors in {header.path} do not fit a {header.architecture} of its own header: "
            f"{error}"
        ) from error
    return network.eval()


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _whole_numbers(item)
    elif type(value) is int:
        yield value


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    architecture: str,
    config: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a weights file; `half` stores 16-bit floats, which is what ships."""
    import torch  # noqa: PLC0415

    stored = {
        name: value.to(torch.float16) if half and value.is_floating_point() else value
        for name, value in tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "architecture": architecture,
        "config": json.dumps(config),
        "about": json.dumps(about or {}),
    }
    write_tensors(path, stored, metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors so that a kill leaves the old file or the new one, never half of one."""
    import safetensors.torch  # noqa: PLC0415

    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with replacing(path, "wb") as stream:
        stream.write(_canonical(safetensors.torch.save(contiguous, metadata)))


def _canonical(content: bytes) -> bytes:
    """The same file with a sorted header: safetensors orders metadata by chance."""
    (length,) = _LENGTH.unpack_from(content)
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return _LENGTH.pack(len(header)) + header + content[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata.

    Raises:
        DenoiserError: the file is a pickle, no safetensors, or cut short.
    """
    refuse_pickle(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DenoiserError(f"{path} cannot be read: {error}.") from error
    metadata = _metadata(path, content, len(content))
    return dict(_loaded(path, content)), metadata


def _loaded(path: Path, content: bytes) -> Iterable[tuple[str, Tensor]]:
    import safetensors.torch  # noqa: PLC0415

    try:
        return safetensors.torch.load(content).items()
    except Exception as error:  # its own class, and what torch makes of odd types and shapes
        raise DenoiserError(
            f"{path} is not a safetensors file that can be read: {error}. Download or copy it "
            "again."
        ) from error


def _metadata(path: Path, content: bytes, size: int) -> dict[str, str]:
    """Return what a safetensors file says of itself, from its start and its size in bytes."""
    # The layout: 8 bytes of header length, a JSON header with each tensor's offsets, the data.
    if size < _LENGTH.size:
        raise DenoiserError(f"{path} is {size} bytes long: no safetensors file is.")
    (length,) = _LENGTH.unpack_from(content)
    if length > min(_LARGEST_HEADER, size - 8):
        raise DenoiserError(
            f"{path} is not a safetensors file, or it was cut short. Download or copy it again."
        )
    try:
        header = parse_json(content[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if not all(isinstance(value, str) for value in metadata.values()):
            raise DenoiserError(f"{path} is not a safetensors file: its metadata is not text.")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DenoiserError(f"{path} is not a safetensors file: {error!r}.") from error
    if size != 8 + length + end:
        raise DenoiserError(
            f"{path} is {size} bytes long, but its header describes {8 + length + end}: it "
            "was cut short or added to. Download or copy it again."
        )
    return dict(metadata)


def _damaged(header: Header, sha256: str) -> DenoiserError:
    return DenoiserError(
        f"The shipped weights {header.path.name} have the SHA-256 {sha256[:16]}..., but their "
        f"model card says {header.sha256[:16]}...: the installation is damaged. Install "
        "smoothapi-vision again."
    )


def _changed(header: Header) -> DenoiserError:
    return DenoiserError(
        f"{header.path} changed after its fingerprint was taken. Start again, so that "
        "certificates name the weights that were used."
    )


def _too_large(header: Header) -> DenoiserError:
    return DenoiserError(
        f"The tensors in {header.path} do not fit a {header.architecture} of its own header, "
        "which is larger."
    )
