"""What the providers' protocols have in common: a request read strictly, an answer put in words.

A provider's file turns a `Request` into a `Question` (or raises the `Refusal` that the real service
would give), and an `Answer` into a `Reply`. It does no I/O: bytes come in and go out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from smoothapi.image import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from smoothapi.answer import Answer
    from smoothapi.wires.trouble import Trouble


class Refusal(Exception):  # noqa: N818  it is what a service says, not an error of this program
    """What the provider says instead of an answer.

    Attributes:
        status: HTTP status.
        code: the provider's own code or name for it.
        message: the provider's words.
        retry_after: seconds that the caller is told to wait; None if it is not told.
        more: what else its body says.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        **more: Any,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.more = more


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it came in.

    Attributes:
        method: "POST".
        path: decoded path, without the query.
        route: the path's pattern, "" if the service has no such path.
        names: values of the pattern's placeholders.
        query: parameters of the query; of several of one name, the last.
        headers: by lower-case name.
        body: the whole body.
    """

    method: str
    path: str
    route: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture that the provider would take.

    Attributes:
        data: the bytes as they were sent.
        pixels: (H, W, 3) uint8 RGB, upright.
        format: "PNG", "JPEG", ...
    """

    data: bytes = field(repr=False)
    pixels: NDArray[np.uint8] = field(repr=False)
    format: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks for.

    Attributes:
        operation: the provider's name for it.
        pictures: what is to be labelled; a refusal in the place of a picture is for it alone.
        parameters: all that was asked besides the pictures, for those who look on.
        details: the same, parsed, in the protocol's own terms.
    """

    operation: str
    pictures: tuple[Picture | Refusal, ...]
    parameters: Mapping[str, Any]
    details: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response."""

    status: int
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderJson:
    """The provider's own JSON for one picture, to be served as it is."""

    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The JSON, read."""
        return json.loads(self.body)


Outcome: TypeAlias = "Answer | Refusal | ProviderJson"
"""What is said of one picture."""


class Wire(Protocol):
    """One provider's protocol."""

    paths: tuple[str, ...]
    """Patterns of the paths that take a POST."""
    max_body: int
    """Most bytes of a body, envelope included."""

    def operation(self, request: Request) -> str:
        """Return the name of what is asked for, "" if the service does not know it."""

    def read(self, request: Request) -> Question:
        """Read a request strictly.

        Raises:
            Refusal: the real service would refuse it.
        """

    def too_large(self) -> Refusal:
        """Return how the provider refuses a body over `max_body`."""

    def answer(self, question: Question, outcomes: Sequence[Outcome]) -> Reply:
        """Say what the pictures show, one outcome for each."""

    def refuse(self, refusal: Refusal) -> Reply:
        """Say no. The transport adds the header of `Refusal.retry_after`."""

    def unanswerable(self, reason: str) -> Refusal:
        """Return how the provider says that it will never answer for a picture."""

    def trouble(self, trouble: Trouble, *, retry_after: float | None = None) -> Refusal:
        """Return how the provider words trouble of its own."""

    def inside(self, question: Question | None) -> Reply:
        """Return the reply with status 200 that hides a failure."""


def read_json(body: bytes, malformed: Callable[[str], Refusal]) -> dict[str, Any]:
    """Return the JSON object in a body; raises `malformed(why)` where it holds something else."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed("the body is not JSON") from error
    if not isinstance(data, dict):
        raise malformed("the body is not a JSON object")
    return data


def from_base64(text: object) -> bytes | None:
    """Return the bytes; None unless the text is base64 (standard or URL-safe alphabet)."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None


class UnreadableError(Exception):
    """The bytes are not a picture in one of the formats taken."""


class TooManyPixelsError(Exception):
    """The picture is not decoded: its sides are too long, or it is a decompression bomb."""


def read_picture(
    data: bytes, formats: Sequence[str], *, max_side: int, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode a picture completely.

    Args:
        data: its file.
        formats: Pillow's names of what is taken.
        max_side: longest side that is decoded.
        max_pixels: most pixels that are decoded; more can be a decompression bomb.

    Raises:
        UnreadableError: the file has another format, or is damaged.
        TooManyPixelsError: it is too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=list(formats))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError("of a decompression bomb") from error
    except Exception as error:  # a damaged file can raise almost anything in a decoder
        raise UnreadableError(type(error).__name__) from error
    if max(image.size) > max_side or image.width * image.height > max_pixels:
        raise TooManyPixelsError(f"{image.width} x {image.height}")
    try:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:
        raise UnreadableError(type(error).__name__) from error
    return Picture(data, pixels, image.format or "")


def to_reply(
    status: int,
    body: object,
    headers: Sequence[tuple[str, str]] = (),
    content_type: str = "application/json; charset=utf-8",
) -> Reply:
    """Return a reply with `body` as JSON in ASCII, so that no label can end a line."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Reply(status, text.encode(), (("content-type", content_type), *headers))


def request_id() -> str:
    """Return a fresh id such as most providers give each request."""
    return str(uuid.uuid4())
