"""Photos from buckets, read with the providers' own credentials.

Whatever the provider's SDK would sign in with is used where that SDK is installed (boto3,
google-auth, azure-identity): profiles, roles, workload identities. Without it, or where it finds
none, the environment and the machine's own identity are. A bucket that is public is read unsigned.
"""

from __future__ import annotations

import os
import re
import threading
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import ImageError, MissingExtraError
from smoothapi.photos.naming import RemoteFile, shown_location
from smoothapi.provider.registry import registered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.photos.limits import FetchLimits

GROUP = "smoothapi.buckets"
"""Entry points by scheme: functions that return options of a store, by which its SDK signs in."""

BUCKETS = ("s3", "gs", "az")
"""Schemes: Amazon S3, Google Cloud Storage, Azure Blob Storage."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}[a-z0-9]")
_MAGIC = re.compile(r"[*?[]")
_CONNECT = timedelta(seconds=10)
_PAGE = 1000  # files of a listing that are looked at together


class BucketFetcher:
    """Fetches photos from s3://bucket/key, gs://bucket/key and az://container/key: a `Fetcher`.

    Azure's account is that of AZURE_STORAGE_ACCOUNT_NAME; the region of S3 that of AWS_REGION, or
    of the profile. A location that ends in "/", or that no file has, stands for all files below
    it; one with *, ? or [ for those that match.

    Args:
        limits: of each photo.
        open_store: returns the store of a scheme and a bucket; obstore's by default.
    """

    def __init__(
        self, limits: FetchLimits, open_store: Callable[[str, str], Any] | None = None
    ) -> None:
        self._limits = limits
        self._open = open_store or self._opened
        self._lock = threading.Lock()
        self._stores: dict[tuple[str, str], Any] = {}

    def fetch(self, location: str) -> bytes:
        """Return the file at a location.

        Raises:
            ImageError: it is not there, not allowed, too long or too slow.
            MissingExtraError: the extra `remote` is not installed.
        """
        shown, most = shown_location(location), self._limits.most_bytes
        scheme, bucket, key = _parsed(location)
        store = self._store(scheme, bucket)
        data = bytearray()
        try:
            found = store.get(key)
            size = int(found.meta["size"])
            for piece in found.stream() if size <= most else ():
                data += piece
                if len(data) > most:
                    size = len(data)
                    break
        except FileNotFoundError:
            raise _refused(shown, "it is not there") from None
        except Exception as error:  # noqa: BLE001  of Rust: its classes say little
            raise _refused(shown, _why(error)) from None
        if size > most:
            raise _refused(shown, f"it has {size:,} bytes or more, and {most:,} are allowed")
        return bytes(data)

    def below(self, location: str) -> Iterator[RemoteFile]:
        """Yield the files that a location stands for, as the bucket lists them: in order of name.

        Raises:
            ImageError: there are none, or they may not be listed.
            MissingExtraError: the extra `remote` is not installed.
        """
        scheme, bucket, key = _parsed(location)
        store, root = self._store(scheme, bucket), f"{scheme}://{bucket}/"
        magic = _MAGIC.search(key)
        try:
            if key and not key.endswith("/") and not magic:
                meta = _head(store, key)
                if meta is not None:
                    yield RemoteFile(root + key, _stamp(meta))
                    return
            prefix = key[: magic.start()].rpartition("/")[0] if magic else key.strip("/")
            none = True
            for page in store.list(prefix or None, chunk_size=_PAGE):
                for meta in page:
                    path = str(meta["path"])
                    if not magic or fnmatchcase(path, key):
                        none = False
                        yield RemoteFile(root + path, _stamp(meta))
        except ImageError:
            raise
        except Exception as error:  # noqa: BLE001  see above
            raise _refused(shown_location(location), _why(error)) from None
        if none:
            raise _refused(shown_location(location), "nothing is there")

    def _store(self, scheme: str, bucket: str) -> Any:
        with self._lock:
            if (scheme, bucket) not in self._stores:
                self._stores[scheme, bucket] = self._open(scheme, bucket)
            return self._stores[scheme, bucket]

    def _opened(self, scheme: str, bucket: str) -> Any:
        stores = require_obstore()
        seconds = timedelta(seconds=self._limits.seconds)
        options: dict[str, Any] = {
            "client_options": {
                "timeout": seconds,
                "connect_timeout": min(_CONNECT, seconds),
                # For a server of one's own (an emulator, MinIO) that the environment names.
                "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
            },
            "retry_config": {"max_retries": 3, "retry_timeout": seconds},
        }
        try:
            kind = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
            return kind(bucket, **options, **_signed_in(scheme))
        except Exception as error:  # noqa: BLE001  see above
            raise _refused(f"{scheme}://{bucket}", _why(error)) from None


def require_obstore() -> Any:
    """Return obstore's module of stores.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from obstore import store  # noqa: PLC0415  an extra
    except ImportError as error:
        raise MissingExtraError(
            "Photos in buckets need another package to be read: pip install "
            "'smoothapi-vision[remote]'."
        ) from error
    return store


def _signed_in(scheme: str) -> dict[str, Any]:
    """Return the options of a store by which the provider's SDK would sign in; none without it."""
    point = registered(GROUP).get(scheme)
    try:
        sign_in = None if point is None else point.load()
    except ImportError:  # the SDK is an extra
        return {}
    return {} if sign_in is None else dict(sign_in())


def _parsed(location: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key; raises ImageError."""
    shown = shown_location(location)
    try:
        scheme, bucket = (urlsplit(location).scheme, urlsplit(location).netloc)
    except ValueError:
        raise _refused(shown, "no bucket has such a name") from None
    if scheme not in BUCKETS or not _BUCKET.fullmatch(bucket):
        raise _refused(shown, "no bucket has such a name")
    return scheme, bucket, location.partition("://")[2].partition("/")[2]


def _head(store: Any, key: str) -> Any:
    try:
        return store.head(key)
    except FileNotFoundError:
        return None


def _stamp(meta: Any) -> str:
    """Return what changes with the content of a file."""
    changed = meta["last_modified"].isoformat()
    return f"{meta['size']}-{meta['e_tag'] or ''}-{changed}"


_WORDS = (
    ("Unauthenticated", "the credentials were refused"),
    ("PermissionDenied", "the credentials do not allow it"),
    ("InvalidPath", "no file has such a name"),
)

_NO_CREDENTIALS = (
    "no credentials were found, nor does this machine have an identity of its own: sign in as for "
    "the provider's own tools, or set the variables that they read"
)
_UNREACHED = (
    "the service cannot be reached: look at the network, at HTTPS_PROXY, and at the endpoint if "
    "the environment names one (AWS_ENDPOINT_URL)"
)
_TEXTS = (
    # where machines of the providers ask who they are
    (
        re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal"),
        _NO_CREDENTIALS,
    ),
    (
        re.compile(r"(?i)redirect|status: 301"),
        "the bucket is in another region: set AWS_REGION to its own",
    ),
    # not the word alone: how long its client has patience stands in all that it says
    (re.compile(r"kind: Timeout|operation timed out"), "it took too long"),
    (re.compile(r"kind: Connect"), _UNREACHED),
    (
        re.compile(r"(?is)(?=.*azure).*account"),
        "the account is not known: set AZURE_STORAGE_ACCOUNT_NAME",
    ),
)


def _why(error: Exception) -> str:
    """Return what a failure of obstore means; its own text may quote signed URLs."""
    name, text = type(error).__name__, str(error)
    for known, words in _WORDS:
        if name.startswith(known):
            return words
    for pattern, words in _TEXTS:
        if pattern.search(text):
            return words
    return f"the service, or the way to it, failed ({name})"


def _refused(shown: str, why: str) -> ImageError:
    return ImageError(f"Cannot fetch the photo {shown!r}: {why}.")
