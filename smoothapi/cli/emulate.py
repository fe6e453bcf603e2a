"""`smoothapi emulate`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from smoothapi.cli.signals import EndingSignal
from smoothapi.cli.terminal import echo
from smoothapi.hosts import is_loopback
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.services import Received, Service

_PROVIDERS = ("aws", "google", "google-grpc", "azure", "azure4", "clarifai")
_KEY = "emulated"

# The lines are run by the tests as they stand.
_PYTHON = {
    "aws": """\
import boto3
client = boto3.client("rekognition", endpoint_url="{url}", region_name="us-east-1",
                      aws_access_key_id="{key}", aws_secret_access_key="{key}")""",
    "google": """\
from google.auth.credentials import AnonymousCredentials
from google.cloud import vision
client = vision.ImageAnnotatorClient(transport="rest", credentials=AnonymousCredentials(),
                                     client_options={{"api_endpoint": "{url}"}})""",
    "google-grpc": """\
import grpc
from google.cloud import vision
from google.cloud.vision_v1.services.image_annotator import transports
channel = grpc.insecure_channel("{address}")
transport = transports.ImageAnnotatorGrpcTransport(channel=channel)
client = vision.ImageAnnotatorClient(transport=transport)""",
    "azure": """\
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from msrest.authentication import CognitiveServicesCredentials
client = ComputerVisionClient("{url}", CognitiveServicesCredentials("{key}"))""",
    "azure4": """\
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.core.credentials import AzureKeyCredential
client = ImageAnalysisClient("{url}", AzureKeyCredential("{key}"))""",
    "clarifai": """\
import base64, pathlib, requests
photo = base64.b64encode(pathlib.Path("photo.jpg").read_bytes()).decode()
response = requests.post(
    "{url}/v2/users/clarifai/apps/main/models/general-image-recognition/outputs",
    headers={{"Authorization": "Key {key}"}},
    json={{"inputs": [{{"data": {{"image": {{"base64": photo}}}}}}]}}, timeout=30)""",
}
_SHELL = {
    "aws": """\
(printf '{{"Image":{{"Bytes":"'; base64 < photo.jpg | tr -d '\\n'; printf '"}}}}') |
  curl -sS --aws-sigv4 aws:amz:us-east-1:rekognition --user {key}:{key} \\
    -H 'Content-Type: application/x-amz-json-1.1' \\
    -H 'X-Amz-Target: RekognitionService.DetectLabels' --data-binary @- {url}/""",
    "google": """\
(printf '{{"requests":[{{"features":[{{"type":"LABEL_DETECTION"}}],"image":{{"content":"'
  base64 < photo.jpg | tr -d '\\n'; printf '"}}}}]}}') |
  curl -sS -H 'Content-Type: application/json' -H 'X-Goog-Api-Key: {key}' \\
    --data-binary @- {url}/v1/images:annotate""",
    "azure": """\
curl -sS -H 'Ocp-Apim-Subscription-Key: {key}' -H 'Content-Type: application/octet-stream' \\
    --data-binary @photo.jpg {url}/vision/v3.2/tag""",
    "azure4": """\
curl -sS -H 'Ocp-Apim-Subscription-Key: {key}' -H 'Content-Type: application/octet-stream' \\
    --data-binary @photo.jpg \\
    '{url}/computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags'""",
    "clarifai": """\
(printf '{{"inputs":[{{"data":{{"image":{{"base64":"'
  base64 < photo.jpg | tr -d '\\n'; printf '"}}}}}}]}}') |
  curl -sS -H 'Authorization: Key {key}' -H 'Content-Type: application/json' --data-binary @- \\
    {url}/v2/users/clarifai/apps/main/models/general-image-recognition/outputs""",
}
_TOML = {
    "aws": """\
# with AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={key} and, once: smoothapi config trust
[providers.aws]
endpoint = "{url}"
region = "us-east-1\"""",
    "google": """\
[providers.google]
endpoint = "{url}"
transport = "rest"
api_key = "{key}\"""",
    "google-grpc": """\
[providers.google]
endpoint = "{url}"
transport = "grpc"
api_key = "{key}\"""",
    "azure": """\
[providers.azure]
endpoint = "{url}"
key = "{key}\"""",
    "azure4": """\
[providers.azure4]
endpoint = "{url}"
key = "{key}\"""",
    "clarifai": """\
[providers.clarifai]
endpoint = "{url}"
pat = "{key}\"""",
}
_OTHERS = {
    "aws": """\
# any SDK of AWS takes these from the environment, with no change of code
AWS_ENDPOINT_URL_REKOGNITION={url}
AWS_ACCESS_KEY_ID={key}
AWS_SECRET_ACCESS_KEY={key}""",
}
_TITLES = {
    "python": "Python",
    "shell": "Shell",
    "environment": "Environment",
    "toml": "smoothapi.toml",
}


@click.command()
@click.argument("provider", type=click.Choice(_PROVIDERS), metavar="PROVIDER")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    show_default=True,
    help="0 takes one that is free.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--backend",
    default="efficientnet",
    show_default=True,
    help="efficientnet, replay:FILE, or module:function.",
)
@click.option(
    "--faults",
    default="",
    metavar="PLAN",
    help="What goes wrong, such as '3x429, 2% timeout, 1% 500'.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which requests.")
@click.option(
    "--latency",
    default="0",
    metavar="SECONDS",
    help="What answers take, or a distribution: 'lognormal 0.2 0.5'.",
)
@click.option("--key", help="The only key (or access key id) let in; any, by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, on stdout.")
def emulate(  # noqa: PLR0917  click passes options by name
    provider: str,
    port: int,
    host: str,
    backend: str,
    faults: str,
    seed: int,
    latency: str,
    key: str | None,
    as_json: bool,
) -> int:
    """Speak a provider's protocol on this machine, for its SDKs, other languages and curl.

    PROVIDER is aws, google, google-grpc, azure, azure4 or clarifai.

    With the provider's limits and error bodies, and with failures if asked for. Nothing is sent
    anywhere. Ctrl-C ends it; a second one does not wait for a backend that is still at work.
    """
    from smoothapi.services import (  # noqa: PLC0415
        Faults,
        load_backend,
        serve,
    )
    from smoothapi.services.latency import Latency  # noqa: PLC0415

    plan = Faults.parse(faults, seed=seed)
    times = Latency.parse(latency, seed=seed)
    with _current_folder_importable():
        labeller = load_backend(backend, provider=provider.partition("-")[0])
    if backend == "efficientnet":
        _warm_up(labeller)
    done = _json_line if as_json else _line
    serving = partial(
        serve,
        provider,
        labeller,
        faults=plan,
        latency=times,
        host=host,
        port=port,
        key=key,
        on_done=done,
        keep=0,
    )
    with _leaving_at_the_second_ctrl_c(), serving() as service:
        if not is_loopback(host):
            echo(
                f"smoothapi: {printable(host)} can be reached from elsewhere. This service is for "
                "tests: it verifies no signatures, and whoever reaches it can use it.",
                err=True,
            )
        told = partial(_introduce, service, key=key or _KEY, plan=str(plan), as_json=as_json)
        _until_stopped(told)
        requests, billed = service.requests, service.billed
    if not as_json:
        echo(f"\nEnded: {requests:,} requests, {billed:,} pictures labelled.", err=True)
    return 0


def instructions(provider: str, url: str, address: str, key: str = _KEY) -> dict[str, str]:
    """Return how to point callers at a service, by where the lines go.

    "python", "toml" (smoothapi's own settings), "shell" where curl can, "environment" for AWS.
    """
    values = {"url": url, "address": address, "key": key}
    texts = {"python": _PYTHON, "shell": _SHELL, "environment": _OTHERS, "toml": _TOML}
    return {
        kind: by_provider[provider].format(**values)
        for kind, by_provider in texts.items()
        if provider in by_provider
    }


def _introduce(service: Service, *, key: str, plan: str, as_json: bool) -> None:
    """Say how to use the service, and in the last line that it is ready."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(service.host)  # noqa: S104  compared only
    address = f"{host}:{service.port}" if host else service.address
    url = f"http://{address}"
    told = instructions(service.name, url, address, key)
    if as_json:
        ready = {"ready": True, "provider": service.name, "url": url, "address": address}
        echo(json.dumps(ready | told))
        return
    for kind, text in told.items():
        lines = "".join(f"    {line}\n" for line in text.splitlines())
        echo(f"{_TITLES[kind]}:\n{lines}")
    if plan:
        echo(f"Faults: {plan}")
    echo(f"Ready: {service.name} at {url} (Ctrl-C ends it)")


def _line(received: Received, status: str, seconds: float) -> None:
    """Write a request to stderr in one line."""
    pictures = ", ".join(
        f"{width} x {height} ({size:,} bytes)"
        for (width, height), size in list(zip(received.sizes, received.bytes, strict=True))[:3]
    )
    more = f" and {received.pictures - 3} more" if received.pictures > 3 else ""
    notes = [received.refused] if received.refused else []
    notes += [f"fault {received.fault}"] if received.fault else []
    what = received.operation or "unknown request"
    text = (
        f"{time.strftime('%H:%M:%S')}  #{received.number + 1}  {what}  "
        f"{pictures or 'no picture'}{more}  {status}  {seconds:.3f} s"
    )
    echo(printable("  ".join([text, *notes])), err=True)


def _json_line(received: Received, status: str, seconds: float) -> None:
    """Write a request to stdout as JSON."""
    row: dict[str, Any] = {
        "request": received.number + 1,
        "operation": received.operation,
        "status": status,
        "seconds": round(seconds, 4),
        "sizes": received.sizes,
        "bytes": received.bytes,
        "refused": received.refused,
        "fault": received.fault,
    }
    with contextlib.suppress(BrokenPipeError):
        echo(json.dumps(row))


def _until_stopped(begin: Callable[[], None]) -> None:
    """Begin, and return when the user, or who started this process, asks to stop."""
    with contextlib.suppress(KeyboardInterrupt):
        begin()  # in here: whoever reads that it is ready may ask to stop at once
        _wait()


@contextlib.contextmanager
def _leaving_at_the_second_ctrl_c() -> Iterator[None]:
    """End the process if Ctrl-C interrupts the closing: Python would join the backend's threads."""
    try:
        yield
    except KeyboardInterrupt:
        echo("\nEnded while a backend was still at work.", err=True)
        sys.stdout.flush()
        os._exit(EndingSignal().exit_code)


def _wait() -> None:
    threading.Event().wait()


def _warm_up(labeller: Any) -> None:
    """Load the network before the first caller waits for it."""
    import numpy as np  # noqa: PLC0415

    labeller(np.zeros((224, 224, 3), np.uint8))


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Let module:function name a file beside which the command is run, as `python -m` does."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  sys.path holds text
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(os.getcwd())  # noqa: PTH109
