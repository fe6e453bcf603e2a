"""How photos in buckets of Amazon S3 are signed for: as boto3 would."""

from __future__ import annotations

from typing import Any

import boto3


def sign_in() -> dict[str, Any]:
    """Return the options of obstore's `S3Store`: profiles, roles, region as boto3 finds them.

    A bucket is read unsigned if there are no credentials: it may be public.
    """
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415  an extra

    session = boto3.Session()
    region = {"region": session.region_name} if session.region_name else {}
    if session.get_credentials() is None:
        return {"skip_signature": True, **region}
    return {"credential_provider": Boto3CredentialProvider(session), **region}
