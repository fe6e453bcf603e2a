"""`smoothapi emulate`: what it says works as it stands, and it ends when it is told to."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from smoothapi.cli import emulate as command
from smoothapi.cli import run
from smoothapi.services import PROVIDERS, Faults, Latency
from tests.unit.services.conftest import picture
from tests.waiting import PATIENCE

COLOURS = ["--port", "0", "--backend", "smoothapi.services:by_colour"]


def blocks(text):
    """Return the indented blocks of what was said, by the title before each."""
    return {
        title: textwrap.dedent(block)
        for title, block in re.findall(r"^(\w[^\n]*):\n((?:    [^\n]*\n)+)", text, re.MULTILINE)
    }


ASK = {
    "aws": "result = client.detect_labels(Image={'Bytes': data})['Labels'][0]['Name']; client.close()",
    "google": "result = client.label_detection(image=vision.Image(content=data)).label_annotations[0].description\nclient.transport.close()",
    "google-grpc": "result = client.label_detection(image=vision.Image(content=data)).label_annotations[0].description\nchannel.close()",
    "azure": "import io\nresult = client.tag_image_in_stream(io.BytesIO(data)).tags[0].name; client.close()",
    "azure4": "result = client.analyze(data, visual_features=['TAGS']).tags.list[0].name; client.close()",
    "clarifai": "result = response.json()['outputs'][0]['data']['concepts'][0]['name']",
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_lines_it_prints_work_as_they_stand(provider, monkeypatch, capsys, tmp_path):
    data = picture(kind="JPEG")
    (tmp_path / "photo.jpg").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    seen = {}

    def use():
        out = capsys.readouterr().out
        assert out.splitlines()[-1].startswith(f"Ready: {provider} at http://127.0.0.1:")
        seen.update(blocks(out))
        names = {"data": data}
        exec(seen["Python"] + ASK[provider], names)
        seen["result"] = names["result"]
        if provider == "aws":  # and with nothing but the environment
            import boto3

            for line in seen["Environment"].splitlines()[1:]:
                monkeypatch.setenv(*line.split("="))
            client = boto3.Session().client("rekognition", region_name="eu-west-1")
            client.detect_labels(Image={"Bytes": data})
            client.close()

    monkeypatch.setattr(command, "_wait", use)
    assert run(["emulate", provider, *COLOURS]) == 0
    assert seen["result"] == "red"
    err = capsys.readouterr().err
    assert re.search(r"#1  \S+  120 x 100 \([\d,]+ bytes\)  (200|OK)  \d+\.\d{3} s", err)
    asked = 1 + (provider == "aws")
    assert f"Ended: {asked} requests, {asked} pictures labelled." in err


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_settings_it_prints_work_as_they_stand(provider, monkeypatch, capsys):
    import tomllib

    from smoothapi.provider import make_adapter

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    seen = []

    def use():
        told = blocks(capsys.readouterr().out)
        for line in told.get("Environment", "").splitlines()[2:]:  # the keys; not the address
            monkeypatch.setenv(*line.split("="))
        [(name, options)] = tomllib.loads(told["smoothapi.toml"])["providers"].items()
        adapter = make_adapter(name, **options)
        seen.extend(adapter.ask([picture()]))
        adapter.close()

    monkeypatch.setattr(command, "_wait", use)
    assert run(["emulate", provider, *COLOURS]) == 0
    assert seen[0].labels[0].name == "red"


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "google-grpc"])
def test_the_curl_line_it_prints_works_as_it_stands(provider, monkeypatch, capsys, tmp_path):
    import shutil

    if not shutil.which("curl"):
        pytest.skip("no curl here")
    (tmp_path / "photo.jpg").write_bytes(picture(kind="JPEG"))
    monkeypatch.chdir(tmp_path)

    def use():
        shell = blocks(capsys.readouterr().out)["Shell"]
        told = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        assert '"red"' in told.stdout, told

    monkeypatch.setattr(command, "_wait", use)
    assert run(["emulate", provider, *COLOURS]) == 0


def start(*arguments, cwd=None):
    return subprocess.Popen(
        [sys.executable, "-c", "from smoothapi.cli import main; main()", "emulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "default::ResourceWarning"},
    )


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_a_supervisor_end_it_cleanly_even_while_callers_hang(sign):
    import socket

    process = start("clarifai", *COLOURS, "--json", "--faults", "1xtimeout")
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        host, port = ready["address"].split(":")
        with (
            socket.create_connection((host, int(port)), timeout=PATIENCE) as one,
            socket.create_connection((host, int(port)), timeout=PATIENCE) as other,
        ):
            for caller in (one, other):
                caller.sendall(
                    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            # The first that is read hangs, whichever that is: once the second has its answer, it does.
            [answered], _, _ = select.select([one, other], [], [], PATIENCE)
            assert b" 401 " in answered.recv(100)
            process.send_signal(sign)
            out, err = process.communicate(timeout=PATIENCE)
            hanging = other if answered is one else one
            assert hanging.recv(1) == b""
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert err == ""
    assert sorted(str(json.loads(line)["fault"]) for line in out.splitlines()) == [
        "None",
        "timeout",
    ]


@pytest.mark.parametrize("provider", ["azure4", "google-grpc"])
def test_a_second_ctrl_c_ends_it_though_a_backend_never_answers(provider, tmp_path):
    import socket

    (tmp_path / "hung.py").write_text(
        "import sys, threading\n"
        "def label(picture):\n"
        "    print('asked', file=sys.stderr, flush=True)\n"
        "    threading.Event().wait()\n"
    )
    process = start(provider, "--port", "0", "--backend", "hung:label", "--json", cwd=tmp_path)
    call = None
    try:
        address = json.loads(process.stdout.readline())["address"]
        if provider == "azure4":
            host, port = address.split(":")
            body = picture()
            head = (
                "POST /computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags "
                "HTTP/1.1\r\nHost: x\r\nOcp-Apim-Subscription-Key: k\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            caller = socket.create_connection((host, int(port)), timeout=PATIENCE)
            caller.sendall(head.encode() + body)
        else:
            import grpc
            from google.cloud import vision

            asked = vision.BatchAnnotateImagesRequest(
                requests=[{"image": {"content": picture()}, "features": [{"type_": 4}]}]
            )
            caller = grpc.insecure_channel(address)
            method = "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages"
            call = caller.unary_unary(method).future(  # cancelled once nobody holds it
                vision.BatchAnnotateImagesRequest.serialize(asked),
                metadata=[("x-goog-api-key", "k")],
            )
        assert process.stderr.readline() == "asked\n"
        assert call is None or not call.done()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
        caller.close()
        process.stdout.close()
        process.stderr.close()
    assert process.returncode == 130
    assert err == "\nEnded while a backend was still at work.\n"


def test_a_signal_as_soon_as_it_is_ready_ends_it_cleanly(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_introduce", interrupted)
    assert run(["emulate", "aws", *COLOURS]) == 0


def test_a_key_faults_latency_and_seed_are_obeyed(monkeypatch, capsys):
    import requests

    from smoothapi import services

    real, given = services.serve, {}

    def serving(*arguments, **options):
        given.update(options)
        return real(*arguments, **options)

    def use():
        ready = json.loads(capsys.readouterr().out)
        url = ready["url"] + "/vision/v3.2/tag"
        sent = {"Ocp-Apim-Subscription-Key": "sesame", "Content-Type": "image/png"}
        codes = [
            requests.post(url, picture(), headers=sent, timeout=PATIENCE).status_code for _ in "123"
        ]
        assert codes == [429, 503, 200]
        wrong = {**sent, "Ocp-Apim-Subscription-Key": "simsim"}
        assert requests.post(url, picture(), headers=wrong, timeout=PATIENCE).status_code == 401

    monkeypatch.setattr(services, "serve", serving)
    monkeypatch.setattr(command, "_wait", use)
    options = ["--key", "sesame", "--faults", "1x429, 1x503", "--latency", "0.01", "--json"]
    assert run(["emulate", "azure", *COLOURS, *options, "--seed", "7"]) == 0
    assert given["latency"] == Latency.parse("0.01", seed=7)
    assert given["faults"] == Faults.parse("1x429, 1x503", seed=7)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["429", "503", "200", "401"]
    assert "simsim" not in json.dumps(lines)


def test_another_host_than_loopback_is_warned_of(monkeypatch, capsys):
    from smoothapi import services

    real = services.serve
    monkeypatch.setattr(command, "_wait", lambda: None)
    monkeypatch.setattr(services, "serve", lambda *a, **k: real(*a, **{**k, "host": "127.0.0.1"}))
    assert run(["emulate", "aws", *COLOURS, "--host", "192.0.2.1"]) == 0
    assert "can be reached from elsewhere" in capsys.readouterr().err
    assert run(["emulate", "aws", *COLOURS]) == 0
    assert "elsewhere" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["amazon"], "amazon"),
        (["aws", "--port", "99999"], "65535"),
        (["aws", *COLOURS, "--faults", "3x42"], "42"),
        (["aws", *COLOURS, "--latency", "soon"], "soon"),
        (["aws", "--port", "0", "--backend", "nothing"], "module:function"),
        (["aws", "--port", "0", "--backend", "replay:none.jsonl"], "none.jsonl"),
        (["aws", *COLOURS, "--host", "no.such.host.invalid"], "no.such.host.invalid"),
    ],
)
def test_what_cannot_work_is_said_and_nothing_starts(arguments, words, capsys):
    assert run(["emulate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_backend_beside_the_current_folder_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_labels.py").write_text("def label(picture):\n    return 'mine'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(command, "_wait", lambda: None)
    assert run(["emulate", "aws", "--port", "0", "--backend", "my_labels:label"]) == 0
    assert str(tmp_path) not in sys.path


def test_labels_of_outsiders_cannot_forge_a_line(monkeypatch, capsys):
    import requests

    def use():
        url = capsys.readouterr().out.rpartition(" at ")[2].split()[0]
        headers = {"X-Amz-Target": "RekognitionService.DetectLabels\x1b[31m"}
        requests.post(url, b"{}", headers=headers, timeout=PATIENCE)
        requests.post(url + "/%0aReady:%20forged%1b[31m", b"{}", timeout=PATIENCE)

    monkeypatch.setattr(command, "_wait", use)
    assert run(["emulate", "aws", *COLOURS]) == 0
    err = capsys.readouterr().err
    assert "forged" not in err
    assert "\x1b" not in err


def test_the_help_names_every_option(capsys):
    run(["emulate", "--help"])
    out = capsys.readouterr().out
    for option in (
        "--port",
        "--host",
        "--backend",
        "--faults",
        "--seed",
        "--latency",
        "--key",
        "--json",
    ):
        assert option in out
    assert io.StringIO(out).readline().startswith("Usage: smoothapi emulate")
