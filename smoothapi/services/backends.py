"""What stands behind a local service, by name: "efficientnet", "replay:FILE", "module:function"."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer
from smoothapi.errors import ImageError, PermanentError, SmoothAPIError, UsageError
from smoothapi.image import load_image
from smoothapi.store.recording import PREFIX, read_recording
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.services.service import Backend

_EFFICIENTNET = "smoothapi_adapters.mock:EfficientNetLite0"
_MOST_SIZES = 32  # working sizes that a photo is tried in


def load_backend(name: str, *, provider: str = "") -> Backend:
    """Return what stands behind a service.

    Args:
        name: "efficientnet" (a real labeller of 1,000 classes, extra "demo"), "replay:FILE" (a
            recording), or "module:function": any function (H, W, 3) uint8 RGB -> labels, or a
            class that can be made without arguments and called so.
        provider: whose answers are taken first, where a recording has those of several.

    Raises:
        UsageError: the name says nothing that can be loaded.
        MissingExtraError: its packages are missing.
    """
    if name.startswith(PREFIX):
        return RecordedBackend(name.removeprefix(PREFIX), provider=provider)
    module, colon, function = (_EFFICIENTNET if name == "efficientnet" else name).partition(":")
    if not (module and colon and function):
        raise UsageError(
            f"Unknown backend {name!r}. Use 'efficientnet', 'replay:FILE', or 'module:function', "
            "such as 'smoothapi.services:by_colour'."
        )
    try:
        found: Any = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
        backend = found() if isinstance(found, type) else found
    except SmoothAPIError:
        raise
    except Exception as error:
        raise UsageError(
            f"The backend {name!r} cannot be loaded: {type(error).__name__}: {error}. Modules are "
            "looked for in the current folder and among the installed packages."
        ) from error
    if not callable(backend) and not hasattr(backend, "label_payload"):
        raise UsageError(f"The backend {name!r} is not a function from a picture to labels.")
    made: Backend = backend
    return made


class RecordedBackend:
    """Answers from a recording, to the very bytes that were sent when it was made.

    A photo as a whole is known by its working image, too: code that sends the photo itself gets
    what the provider said of it plainly, if the run asked that.

    Args:
        file: what `Smoother(record=...)` or `smoothapi cache export` wrote.
        provider: whose answers are taken first, where there are those of several.

    Raises:
        UsageError: it is not a recording, holds nothing to answer from, or holds two different
            answers to the same picture.
    """

    def __init__(self, file: str, *, provider: str = "") -> None:
        self._file = printable(Path(file).name)
        self._sent: dict[object, Answer | PermanentError] = {}
        self._photos: dict[object, Answer | PermanentError] = {}
        rows = list(read_recording(file))
        mine = [(row, said) for row, said in rows if row["asked"].get("provider") == provider]
        sizes: list[tuple[int, int]] = []
        identities: dict[object, object] = {}
        for row, said in mine or rows:
            asked = row["asked"]
            width, height = asked.get("size", (0, 0))  # a wrapped client's own call has none
            keys = [(self._sent, row["payload"])] if "payload" in row else []
            if asked.get("plain"):
                keys.append((self._photos, (asked["image"], (width, height))))
                sizes.append((width, height))
            for kept, key in keys:
                kept[key] = said  # of two answers to the same question, the later one
                if identities.setdefault(key, asked.get("identity")) != asked.get("identity"):
                    raise UsageError(
                        f"The recording {self._file!r} has answers to one picture by two "
                        "operations or options. A service gives one: keep the others elsewhere."
                    )
        if not self._sent and not self._photos:
            raise UsageError(
                f"The recording {self._file!r} holds {len(rows):,} answers, but not to which bytes "
                "they are (an older version wrote it), so no request can be matched. Record the "
                "run again with Smoother(record=...), or replay it without a service: "
                "Smoother('replay:FILE')."
            )
        self._sizes = list(dict.fromkeys(sizes))[:_MOST_SIZES]

    def label_payload(self, payload: bytes) -> Answer:
        """Return what was answered to these bytes, or to this photo.

        Raises:
            PermanentError: nothing, or the provider refused it then.
        """
        said = self._sent.get(hashlib.sha256(payload).hexdigest())
        for size in self._sizes if said is None else ():
            try:
                digest = load_image(payload, size=size).digest
            except ImageError:
                break
            if (said := self._photos.get((digest, size))) is not None:
                break
        if isinstance(said, Answer):
            return said
        raise said or PermanentError(
            f"The recording {self._file!r} has no answer to this picture. Noisy variants are the "
            "same bytes only with the same noise key, denoiser and codec."
        )
