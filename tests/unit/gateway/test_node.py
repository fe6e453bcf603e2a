"""The AWS SDK for JavaScript against a gateway: a language that this package is not written in.

`make test` installs it where there is Node; without it this is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from smoothapi.gateway import Records
from smoothapi.store import Home
from tests.unit.wrapping.conftest import PHOTO

NODE = Path(__file__).parents[2] / "node"

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("node") is None or not (NODE / "node_modules" / ".ready").exists(),
        reason="make tests/node/node_modules/.ready installs the AWS SDK for JavaScript",
    ),
]


def test_the_same_script_gets_the_same_shape_and_certified_labels(aws, start, tmp_path):
    records = Records(Home(tmp_path / "home").records)
    token = records.add_token("node")
    records.close()
    gateway = start("aws", aws, callers="tokens")
    photo = tmp_path / "photo.png"
    photo.write_bytes(PHOTO)

    def run(url, key):
        keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("AWS_")
        }
        done = subprocess.run(
            ["node", "rekognition.mjs", str(photo)],
            cwd=NODE,
            env={**environment, **keys, "AWS_ENDPOINT_URL_REKOGNITION": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(done.stdout)

    direct, through = run(aws.url, "any"), run(gateway.url, token)
    assert [label["Name"] for label in direct["Labels"]] == ["Bus", "Vehicle", "Van"]
    assert [label["Name"] for label in through["Labels"]] == ["Bus", "Vehicle"]
    assert through.keys() == direct.keys()
    assert through["Labels"][0].keys() == direct["Labels"][0].keys()
    assert run(gateway.url, "AKIASTRANGER")["error"] == "UnrecognizedClientException"
