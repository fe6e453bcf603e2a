"""How photos in buckets of Google Cloud Storage are signed for: as google-auth would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import google.auth
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import Request

_READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
_MARGIN = timedelta(minutes=4)  # what is left of a token when another is asked for


def sign_in() -> dict[str, Any]:
    """Return the options of obstore's `GCSStore`: application default credentials, to read only.

    A bucket is read unsigned if there are none: it may be public.
    """
    try:
        found, _ = google.auth.default(scopes=[_READ_ONLY])
    except DefaultCredentialsError:
        return {"skip_signature": True}
    credentials: Any = found

    def token() -> dict[str, Any]:
        credentials.refresh(Request())
        ends = datetime.now(UTC) + 2 * _MARGIN
        if credentials.expiry is not None:
            ends = credentials.expiry.replace(tzinfo=UTC)
        return {"token": credentials.token, "expires_at": ends - _MARGIN}

    return {"credential_provider": token}
