"""How photos in containers of Azure Blob Storage are signed for: as azure-identity would."""

from __future__ import annotations

import os
from typing import Any

from azure.identity import DefaultAzureCredential


def sign_in() -> dict[str, Any]:
    """Return the options of obstore's `AzureStore`.

    Keys and tokens in AZURE_STORAGE_* variables, which obstore reads, come before identities.
    """
    given = {name for name in os.environ if name.startswith("AZURE_STORAGE_")}
    if given - {"AZURE_STORAGE_ACCOUNT_NAME"}:
        return {}
    from obstore.auth.azure import AzureCredentialProvider  # noqa: PLC0415  an extra

    # Whoever is at the keyboard is not asked from within a run of many photos.
    credential = DefaultAzureCredential(exclude_interactive_browser_credential=True)
    return {"credential_provider": AzureCredentialProvider(credential)}
