"""No credentials of the machine that runs the tests are found."""

from __future__ import annotations

import pytest

from smoothapi_adapters.azure.resource import ENDPOINT_VARIABLES, KEY_VARIABLES
from smoothapi_adapters.google import client


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch, tmp_path):
    google = ("GOOGLE_APPLICATION_CREDENTIALS", "K_SERVICE", "GAE_SERVICE", "GAE_ENV")
    for name in (*ENDPOINT_VARIABLES, *KEY_VARIABLES, *google):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(client, "_PRODUCT", tmp_path / "none")
