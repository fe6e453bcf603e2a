"""The command line as a user meets it: output, exit codes, and what is said when it goes wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothapi import Certificate, certificates, parts, verify
from smoothapi.answer import Answer, Label
from smoothapi.certify import noise_delta, queries_needed
from smoothapi.cli import BROKEN, INTERRUPTED, run
from smoothapi.errors import FatalError
from tests.conftest import ScriptedAdapter, answer

# 24 x 32 pixels, and the settings' defaults
LEAST = queries_needed(0.25, 0.25, 0.001, 1.0, delta=noise_delta(24 * 32 * 3, 0.25)).at_least


@pytest.fixture
def photo():
    path = Path("photo.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(
        path
    )
    return str(path)


@pytest.fixture
def provider(monkeypatch):
    """Make every provider name lead to one scripted adapter, and the denoiser none."""
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")

    def use(script=None, **options):
        adapter = ScriptedAdapter(script, **options)
        monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
        return adapter

    use()
    return use


def unstable(payload, attempt):
    return answer("bus" if payload[-13] % 2 else "van")


def test_certified_exits_with_0(provider, photo, capsys):
    assert run(["certify", photo]) == 0
    out = capsys.readouterr().out
    sent = f"{LEAST + 1} sent"
    for part in ("bus", "certified", "0.25", f"{LEAST}: {LEAST} bus", sent, "(the same)"):
        assert part in out


def test_abstained_exits_with_1_and_says_why(provider, photo, capsys):
    provider(unstable)
    assert run(["certify", photo]) == 1
    out = capsys.readouterr().out
    assert "abstained" in out
    assert "unlikely" in out


@pytest.fixture
def at_less(provider, photo):
    """A command whose photo is certified at less than the radius asked for: 9 of 10 are for bus."""
    asked = count()
    provider(lambda *_: answer("van" if next(asked) % 10 == 9 else "bus"))
    return ["certify", photo, "--radius", "0.3", "--concurrency", "1", "--max-votes", "200"]


def test_an_abstention_says_what_it_certifies_at_less_and_exits_with_1(at_less, capsys):
    assert run(at_less) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert run([*at_less, "--json"]) == 1
    certificate = Certificate.from_json(capsys.readouterr().out)
    assert (certificate.label, certificate.radius) == (None, 0.0)
    found = certificate.largest_radius
    assert 0.25 / 8 <= found < 0.3
    assert f"bus certified at {found:g}" in shown
    assert "0.3 was asked for" in shown


def test_accept_radius_says_how_much_is_enough(at_less, capsys):
    assert run([*at_less, "--json"]) == 1
    certificate = Certificate.from_json(capsys.readouterr().out)
    found, native = certificate.largest_radius, certificate.native(certificate.largest_radius)
    enough = [f"{found:.6f}", f"{native - 2e-6:.6f} native"]
    too_much = [f"{found + 1e-6:.6f}", f"{native + 2e-6:.6f} native"]
    codes = [run([*at_less, "--accept-radius", radius]) for radius in (*enough, *too_much)]
    assert codes == [0, 0, 1, 1]


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--out", "r.jsonl"]])
@pytest.mark.parametrize(
    ("radius", "accepted"),
    [("0.3", "0.4"), ("0.3 native", "0.31 native"), ("0.1/255 rms", "0.2/255 rms")],
)
def test_more_than_is_asked_for_cannot_be_accepted(radius, accepted, more, provider, photo, capsys):
    adapter = provider()
    assert run(["certify", photo, "--radius", radius, "--accept-radius", accepted, *more]) == 2
    assert "Ask for that with --radius, or accept less" in capsys.readouterr().err
    assert adapter.sent == 0


def test_or_less_buys_on_for_a_larger_radius_below_the_one_asked_for(at_less, capsys):
    given_up, further = (
        (run([*at_less, *more, "--json"]), Certificate.from_json(capsys.readouterr().out))
        for more in ([], ["--or-less"])
    )
    assert (given_up[0], further[0]) == (1, 1)
    assert given_up[1].total_votes < further[1].total_votes == 200
    assert given_up[1].largest_radius < further[1].largest_radius < 0.3
    assert further[1].or_less
    verify(further[1])


def test_json_is_one_certificate_a_line_and_a_second_run_is_free(provider, photo, capsys):
    adapter = provider()
    assert run(["certify", photo, "--json", "--radius", "0.1"]) == 0
    first = json.loads(capsys.readouterr().out)
    sent = adapter.sent
    assert run(["certify", photo, "--json", "--radius", "0.1"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert adapter.sent == sent
    assert (first["queries"], second["queries"]) == (sent, 0)
    # What a run is told by its clock and its account, and equality of certificates leaves out.
    for name in ("queries", "attempts", "cached", "cost", "seconds", "issued"):
        first.pop(name), second.pop(name)
    assert first == second


def test_several_photos_one_of_them_bad(provider, photo, capsys):
    Path("bad.png").write_text("no image")
    assert run(["certify", photo, "bad.png", photo, "--json"]) == 2
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["schema"] for line in lines] == [
        "smoothapi.certificate/3",
        "smoothapi.error/1",
        "smoothapi.certificate/3",
    ]
    assert lines[1]["error"] == "ImageError"
    assert "bad.png" in err


def test_predict(provider, photo, capsys):
    assert run(["predict", photo]) == 0
    assert "predicted" in capsys.readouterr().out


def test_dry_run_sends_nothing(provider, photo, capsys):
    adapter = provider()
    assert run(["certify", photo, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert adapter.sent == 0
    assert "Nothing was sent" in out
    assert str(LEAST + 1) in out
    assert run(["certify", photo, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["at_least"] == LEAST + 1
    assert plan["at_most"] == 1001
    assert plan["cost_at_least"] == pytest.approx((LEAST + 1) / 1000)
    assert [row["p"] for row in plan["expected"]] == [0.999, 0.99, 0.95, 0.9]


@pytest.mark.parametrize("radius", ["0.1", "0.11 native", "0.5/255 rms"])
def test_a_dry_run_says_the_radius_in_every_unit_as_the_certificate_does(
    provider, photo, radius, capsys
):
    provider()
    command = ["certify", photo, "--radius", radius, "--size", "20"]
    assert run([*command, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert run([*command, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    said = re.search(
        r"Radius ([0-9.]+) around the working image \(L2, of \[0, 1\]\) is ([0-9.]+) around the "
        r"photo before the resize, ([0-9.]+/255) of it as root mean square",
        shown,
    )
    assert run(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        f"radius {said[1]} around the working image (L2",
        f" {said[2]} around the photo before the resize",
        f" {said[3]} of it as root mean square",
    ):
        assert part in shown
    assert run([*command, "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)
    for name in ("radius", "radius_native", "radius_rms"):
        assert plan[name] == certificate[name] > 0.0


def test_a_dry_run_sums_up_and_counts_the_same_picture_once(provider, photo, capsys):
    provider()
    Image.open(photo).save("same.png")
    Image.new("RGB", (32, 24)).save("other.png")
    assert run(["certify", photo, "--dry-run", "--json"]) == 0
    once = json.loads(capsys.readouterr().out)
    assert run(["certify", photo, "same.png", "other.png", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "in all, 2 pictures" in said
    assert f"{2 * once['at_least']:,}" in said.split("in all")[1]


def test_a_dry_run_over_photos_of_two_sizes_says_from_where_to_where(provider, photo, capsys):
    provider()
    Image.new("RGB", (240, 320)).save("large.png")
    command = ["certify", photo, "large.png", "--radius", "0.3 native", "--size", "20", "--dry-run"]
    assert run(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Radius 0\.0\d+ to 0\.2\d+ around the working image.* is 0\.3 around", shown)
    assert "Votes of photo.png on average" in shown


def test_the_largest_radius_is_in_no_unit_before_the_votes(provider, photo, capsys):
    provider()
    assert run(["certify", photo, "--radius", "largest", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [plan[name] for name in ("radius", "radius_native", "radius_rms", "rms_steps")] == (
        [None] * 4
    )
    assert run(["certify", photo, "--radius", "largest", "--dry-run"]) == 0
    assert "around" not in capsys.readouterr().out


def test_verify_accepts_and_refuses(provider, photo, capsys):
    run(["certify", photo, "--json"])
    text = capsys.readouterr().out
    Path("certificate.json").write_text(text)
    assert run(["verify", "certificate.json", "--photo", photo]) == 0
    assert "Verified" in capsys.readouterr().out
    Path("forged.json").write_text(text.replace('"radius": 0.25,', '"radius": 0.26,'))
    assert run(["verify", "forged.json"]) == 6
    assert "does not add up" in capsys.readouterr().err


def test_verify_checks_each_certificate_of_a_file(provider, photo, capsys):
    run(["certify", photo, photo, "--json"])
    text = capsys.readouterr().out
    Path("two.jsonl").write_text(text + "\n")
    assert run(["verify", "two.jsonl", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verified"] for line in told] == [True, True]
    assert run(["verify", "two.jsonl", "--photo", photo]) == 2
    assert "--photo is about one" in capsys.readouterr().err
    first, second = text.splitlines()
    forged = second.replace('"radius": 0.25,', '"radius": 0.26,')
    Path("bad.jsonl").write_text(f'{forged}\n{first}\n{{"schema": "smoothapi.error/1"}}\n')
    assert run(["verify", "bad.jsonl"]) == 6
    out, err = capsys.readouterr()
    assert out.count("Verified") == 1
    assert "'bad.jsonl', line 1: The certificate does not add up" in err
    assert "'bad.jsonl', line 3: " in err


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.json", "No such file"), ("broken.json", "not valid JSON")],
)
def test_verify_says_in_json_why_not_and_names_the_file(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{broken")
    assert run(["verify", name, "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["photo"]) == ("smoothapi.error/1", None)
    assert told["error"] == "UnreadableCertificateError"
    assert said in told["message"]
    assert name in told["message"]
    assert "Errno" not in told["message"]
    assert run(["verify", "missing.json"]) == 5
    assert "Cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["certify"], 2, "PHOTO"),
        (["certify", "missing.jpg"], 2, "No such file"),
        (["certify", "{photo}", "--sigma", "loud"], 2, "loud"),
        (["certify", "{photo}", "--sigma", "0"], 2, "sigma"),
        (["certify", "{photo}", "--radius", "wide"], 2, "largest"),
        (["certify", "{photo}", "--radius", "0.9"], 2, "at least"),
        (["certify", "{photo}", "--alpha", "2"], 2, "alpha"),
        (["certify", "{photo}", "--device", "gpu0"], 2, "gpu0"),
        (["certify", "{photo}", "--denoiser", "missing.safetensors"], 2, "missing"),
        (["certify", "{photo}", "--classes", "missing.json"], 2, "label file"),
        (["certify", "{photo}", "--max-votes", "20"], 2, f"at least {LEAST}"),
        (["certify", "{photo}", "--budget", "20"], 3, "Nothing was sent"),
        (["certify", "{photo}", "--budget", "$0.01"], 3, "Nothing was sent"),
        (["certify", "{photo}", "--budget", "lots"], 2, "budget"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_usage(provider, photo, capsys, arguments, code, said):
    adapter = provider()
    assert run([argument.format(photo=photo) for argument in arguments]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert adapter.sent == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["certify", "--json"], "PHOTO"),
        (["certify", "a.jpg", "--json", "--nosuch"], "--nosuch"),
        (["plan", "--json", "--photos", "many"], "many"),
    ],
)
def test_bad_usage_is_told_in_json_if_asked_for(arguments, said, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["schema"], told["error"]) == ("smoothapi.error/1", "UsageError")
    assert said in told["message"]
    assert said in err


FIELDS = [
    *("schema", "error", "message", "photo", "provider", "request_id"),
    *("attempts", "retries", "cost", "waited"),
]


@pytest.mark.parametrize(
    "arguments",
    [
        ["certify", "--nosuch"],
        ["certify", "missing.jpg"],
        ["certify", "{photo}"],
        ["study", "missing"],
        ["plan", "--p", "2"],
        ["verify", "missing.json"],
        ["providers", "check", "nobody"],
        ["cache", "import", "missing.jsonl"],
        ["denoiser", "eval", "missing"],
    ],
)
def test_an_error_in_json_has_the_same_fields_everywhere(provider, photo, capsys, arguments):
    provider(lambda p, n: FatalError("Revoked.", provider="scripted", request_id="7"))
    assert run([*(argument.format(photo=photo) for argument in arguments), "--json"]) in {2, 4, 5}
    told = json.loads(capsys.readouterr().out)
    assert list(told) == FIELDS
    page = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
    assert [line.split("`")[1] for line in page.read_text().splitlines() if "| `" in line] == FIELDS
    if told["error"] == "FatalError":
        assert (told["provider"], told["request_id"], told["attempts"]) == ("scripted", "7", 1)


def test_unknown_provider(photo, capsys):
    assert run(["certify", photo, "--provider", "mok"]) == 2
    assert "Did you mean 'mock'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_all_files_are_looked_for_before_the_first_is_paid_for(provider, photo, capsys, command):
    adapter = provider()
    Path("file").touch()
    assert run([command, photo, "missing.jpg", "file/photo.jpg", "--json"]) == 2
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["photo"] for one in told] == ["missing.jpg", "file/photo.jpg"]
    assert "No such file" in told[0]["message"]
    assert "Not a directory" in told[1]["message"]
    assert adapter.sent == 0


def test_a_photo_may_come_from_standard_input(provider, photo, capsys, monkeypatch):
    provider()

    class Given:
        buffer = Path(photo).open("rb")  # noqa: SIM115

    monkeypatch.setattr("sys.stdin", Given)
    with Given.buffer:
        assert run(["certify", "-", "--json"]) == 0
    from_file = run(["certify", photo, "--json"])
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert from_file == 0
    assert one["image"]["digest"] == two["image"]["digest"]
    assert two["queries"] == 0
    assert run(["certify", "-", "-"]) == 2
    assert "name it once" in capsys.readouterr().err


def test_provider_errors_exit_with_4_and_say_what_was_sent(provider, photo, capsys):
    provider(lambda p, n: FatalError("The key was revoked.") if n else None)
    assert run(["certify", photo]) == 4
    err = capsys.readouterr().err
    assert "The key was revoked." in err
    assert "Sent until then: 1" in err
    assert run(["certify", photo, "--json"]) == 4
    line = json.loads(capsys.readouterr().out)
    assert (line["error"], line["attempts"]) == ("FatalError", 1)


def test_ctrl_c_says_how_to_go_on(provider, photo, capsys):
    # As a terminal sends it: the main thread, which waits for answers, gets it.
    provider(lambda p, n: (signal.raise_signal(signal.SIGINT), answer())[1], delay=0.05)
    assert run(["certify", photo]) == INTERRUPTED
    assert "continues where this one ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("works_on", "command"),
    [
        ("config.resolve", ["plan"]),
        ("config.resolve", ["runs"]),
        ("config.resolve", ["doctor", "--offline"]),
        ("config.resolve", ["cache", "verify"]),
        ("config.resolve", ["cache", "export", "answers.jsonl"]),
        ("services.load_backend", ["emulate", "aws"]),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_buys_no_answers_does_not_say_that_they_are_kept(
    provider, monkeypatch, capsys, works_on, command
):
    def stopped(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(f"smoothapi.{works_on}", stopped)
    assert run(command) == INTERRUPTED
    assert capsys.readouterr().err.strip() == "Stopped."
    assert not Path("answers.jsonl").exists()


def test_an_import_that_is_stopped_says_what_stays(provider, photo, monkeypatch, capsys):
    run(["certify", photo])
    run(["cache", "export", "answers.jsonl"])
    monkeypatch.setattr(
        "smoothapi.store.rows.stored_answer", lambda _: signal.raise_signal(signal.SIGINT)
    )
    capsys.readouterr()
    assert run(["cache", "import", "answers.jsonl"]) == INTERRUPTED
    said = "Stopped. The answers that were added stay: the same command adds the rest."
    assert capsys.readouterr().err.strip() == said


def test_labels_from_outside_cannot_steer_the_terminal(provider, photo, capsys):
    name = "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold]"
    provider(lambda *_: Answer((Label(name, 0.9),)))
    run(["certify", photo])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]x[/bold]" in out


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.json", '{"vehicle": ["bus", "van"]}'), ("l.toml", 'vehicle=["bus","van"]')],
)
def test_a_label_file(provider, photo, capsys, name, text):
    provider(unstable)
    Path(name).write_text(text)
    assert run(["certify", photo, "--classes", name]) == 0
    assert "vehicle" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "{", '{"a": "b"}'])
def test_a_bad_label_file(provider, photo, capsys, text):
    Path("labels.json").write_text(text)
    assert run(["certify", photo, "--classes", "labels.json"]) == 2
    assert "label" in capsys.readouterr().err


def test_config_shows_values_and_origins(monkeypatch, capsys):
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "0.5")
    Path("smoothapi.toml").write_text('[providers.http]\napi_key = "s3cret"\n')
    assert run(["config"]) == 0
    out = capsys.readouterr().out
    assert "SMOOTHAPI_SIGMA" in out
    assert "s3cret" not in out
    assert run(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sigma"] == {"value": 0.5, "from": "SMOOTHAPI_SIGMA"}


def test_providers(capsys):
    assert run(["providers"]) == 0
    assert "mock" in capsys.readouterr().out
    assert run(["providers", "--json"]) == 0
    [mock] = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "mock"]
    assert mock["usable"] is True
    assert mock["per_thousand"] == 1.0


def test_help_and_version_load_nothing_heavy():
    script = (
        "import sys; from smoothapi.cli import run; run(['--help']); run(['--version']);"
        "heavy = {'torch', 'numpy', 'scipy', 'pydantic', 'rich', 'boto3', 'csv', 'difflib', 'secrets'};"
        "heavy &= set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "certify" in done.stdout


# What has no part in showing a stored certificate of a file. Together they take as long to load as
# all that it needs.
NOT_FOR_A_STORED_CERTIFICATE = (
    "asyncio",
    "difflib",
    "html.entities",
    "http.client",
    "smoothapi.adapting",
    "smoothapi.asynchronous",
    "smoothapi.denoise.adaptation",
    "smoothapi.each_photo",
    "smoothapi.many",
    "smoothapi.photos.buckets",
    "smoothapi.photos.carrying",
    "smoothapi.photos.places",
    "smoothapi.photos.web",
    "smoothapi.services.service",
    "smoothapi.store.postgres",
    "smoothapi.study",
    "smoothapi.wires.wire",
    "smoothapi.wrapping",
    "ssl",
    "unittest",
    "urllib.request",
)
NOT_FOR_ONE_AS_JSON = ("smoothapi.advice", "smoothapi.cli.output")
# Packages of others that it needs, and what these need.
PACKAGES_FOR_A_STORED_CERTIFICATE = {
    "PIL", "annotated_types", "click", "diskcache", "numpy", "platformdirs", "pydantic",
    "pydantic_core", "typing_extensions", "typing_inspection",
}  # fmt: skip
MOST_MODULES = 160  # of smoothapi's own that it needs


@pytest.mark.timeout(120)
@pytest.mark.parametrize("as_json", [True, False], ids=["JSON", "a table"])
def test_a_stored_certificate_loads_nothing_that_it_does_without(as_json, photo, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    Path("smoothapi.toml").write_text(
        "[providers.mock]\nlabeller = 'probabilities:bus 99%, van 1%'"
    )
    command = ["certify", photo, "--radius", "0.1", *(["--json"] if as_json else [])]
    # What is loaded before, such as the hooks of an installation, is none of smoothapi's.
    script = (
        "import json, sys; before = set(sys.modules); from smoothapi.cli import run;"
        f"code = run({command}); print(json.dumps(sorted(set(sys.modules) - before)));"
        "sys.exit(code)"
    )
    first, again = (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert "scipy" in json.loads(first[-1])
    loaded = json.loads(again[-1])
    unneeded = {*NOT_FOR_A_STORED_CERTIFICATE, *(NOT_FOR_ONE_AS_JSON if as_json else ())}
    assert unneeded & set(loaded) == set()
    own = [name for name in loaded if name.startswith("smoothapi")]
    packages = {name.partition(".")[0] for name in set(loaded) - set(own)}
    others = {name for name in packages if not _of_python(name)}
    assert others <= PACKAGES_FOR_A_STORED_CERTIFICATE
    assert len(own) <= MOST_MODULES
    if as_json:
        certificate = Certificate.from_json(again[0])
        assert certificate.cached == certificate.total_votes + 1
    else:
        assert "0 sent" in "\n".join(again)


def _of_python(package):
    # That of the constants that Python was built with is named after the machine.
    return package in sys.stdlib_module_names or package.startswith("_sysconfigdata_")


@pytest.mark.parametrize("command", [["budget"], ["runs"], ["cache", "info"]])
def test_a_look_at_what_a_home_keeps_loads_nothing_to_compute_with(command):
    script = (
        f"import sys; from smoothapi.cli import run; code = run({command});"
        "heavy = {'numpy', 'PIL', 'scipy', 'torch'} & set(sys.modules);"
        "sys.exit(code or ', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["certify", "study"])
def test_a_second_target_is_refused(provider, photo, capsys, command):
    adapter = provider()
    targets = ["--target", "absent:rifle:0.1", "--target", "absent:revolver:0.1"]
    assert run([command, photo, *targets]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "--target was given 2 times, and takes one value. In Python one target takes several labels"
        in said
    )
    assert "Absence(['rifle', 'revolver'], 0.1)" in said
    assert not adapter.sent


@pytest.mark.parametrize(
    ("option", "values", "said"),
    [
        ("--budget", ("500", "$2"), "--budget '500,$2'"),
        ("--provider", ("aws", "google"), "--provider was given 2 times"),
        ("--sigma", ("0.25", "0.5"), "--sigma was given 2 times"),
        ("--radius", ("0.25", "largest"), "--radius was given 2 times"),
        ("--home", ("here", "there"), "--home was given 2 times"),
    ],
)
def test_a_second_value_is_refused(provider, photo, capsys, option, values, said):
    adapter = provider()
    assert run(["certify", photo, option, values[0], option, values[1]]) == 2
    assert said in capsys.readouterr().err
    assert not adapter.sent
    assert not Path("there").exists()


def test_budgets_are_shown_released_and_reset(provider, photo, capsys):
    assert run(["budget"]) == 0
    assert "No named or periodic budget" in capsys.readouterr().out
    assert run(["certify", photo, "--budget", "$1/month"]) == 0
    capsys.readouterr()
    assert run(["budget", "--json"]) == 0
    [account] = json.loads(capsys.readouterr().out)
    assert account["attempts"] == LEAST + 1
    assert account["dollars"] == pytest.approx((LEAST + 1) / 1000)
    assert (account["name"], account["reserved"], account["dollar_limit"]) == ("default", 0, 1.0)
    assert run(["budget"]) == 0
    assert "default" in capsys.readouterr().out
    assert run(["certify", photo, "--budget", "60/month", "--refresh"]) == 3
    assert run(["budget", "release"]) == 0
    capsys.readouterr()
    assert run(["budget", "reset", "defualt"]) == 2
    assert "No budget has the name 'defualt'" in capsys.readouterr().err
    assert run(["budget", "reset", "default"]) == 0
    assert run(["certify", photo, "--budget", "60/month", "--refresh"]) == 0


def test_answers_are_exported_and_imported_elsewhere(provider, photo, capsys):
    adapter = provider()
    run(["certify", photo])
    assert run(["cache", "export", "answers.jsonl"]) == 0
    head, *rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert head["schema"] == "smoothapi.recording/1"
    assert len(rows) == LEAST + 1
    assert {"answer", "asked", "schema"} <= rows[0].keys()
    home = Path("elsewhere")
    home.mkdir()
    key = home / "noise.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    capsys.readouterr()
    for said in (f"Imported {LEAST + 1:,} answers; 0", f"Imported 0 answers; {LEAST + 1:,}"):
        assert run(["cache", "--home", str(home), "import", "answers.jsonl"]) == 0
        assert said in capsys.readouterr().out
    sent = adapter.sent
    assert run(["certify", photo, "--home", str(home)]) == 0
    assert adapter.sent == sent
    assert run(["cache", "--home", str(home), "verify"]) == 0
    assert run(["cache", "--home", str(home), "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answers"] == LEAST + 1
    assert run(["cache", "--home", str(home), "clear", "--yes"]) == 0
    assert run(["cache", "--home", str(home), "info"]) == 0
    assert "0 answers" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"schema": 1, "asked": {}}', "x"])
def test_a_bad_import_says_which_line(line, capsys):
    Path("bad.jsonl").write_text(line + "\n")
    assert run(["cache", "import", "bad.jsonl"]) == 2
    assert "Line 1" in capsys.readouterr().err


@pytest.mark.parametrize("debug", ["0", "1"])
def test_one_switch_shows_every_event(photo, monkeypatch, debug):
    monkeypatch.setenv("SMOOTHAPI_DEBUG", debug)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from smoothapi.cli import main; main()",
            "predict",
            photo,
            "--denoiser",
            "none",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("attempt provider=mock outcome=answered" in done.stderr) == (debug == "1")


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["--classes", "l.json"], {}, 2, "label file"),
        (["--provider", "mock"], {"SMOOTHAPI_PROVIDERS__MOCK__PRICE": "abc"}, 2, "price"),
        (["--provider", "mock"], {"SMOOTHAPI_PROVIDERS__MOCK__LATENCY": "x"}, 2, "latency"),
    ],
)
def test_bad_settings_are_named(photo, capsys, monkeypatch, arguments, environment, code, said):
    Path("l.json").write_text('{"a": [1]}')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(["certify", photo, *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_configuration_that_is_not_utf_8(provider, photo, capsys):
    Path("pyproject.toml").write_bytes(b"\xff\xfe")
    assert run(["certify", photo]) == 2
    assert "pyproject.toml" in capsys.readouterr().err


def test_what_nobody_foresaw_does_not_exit_like_an_abstention(provider, photo, capsys, monkeypatch):
    monkeypatch.setattr(certificates, "top1", lambda *_: 1 / 0)
    assert run(["certify", photo]) == BROKEN
    assert "internal error" in capsys.readouterr().err


def test_a_misspelt_variable_is_noticed(provider, photo, caplog, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_SIGMAA", "0.5")
    assert run(["certify", photo]) == 0
    assert "SMOOTHAPI_SIGMAA" in caplog.text


def test_json_errors_before_the_first_photo_are_objects_too(photo, capsys):
    assert run(["certify", photo, "--json", "--provider", "mok"]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == "UnknownProviderError"


def test_a_terminal_that_cannot_show_a_sign_is_no_reason_to_fail(photo):
    import os

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from smoothapi.cli import main; main()",
            "predict",
            photo,
            "--denoiser",
            "none",
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("top1", "bus"),
        ("present:bus:0.5", "bus present"),
        ("scores:bus:0.5", "bus at least 0.9"),
        ("absent:Weapon:0.5", "Weapon absent"),
        ("top2", "bus"),
        ("most-specific:0.5", "bus"),
    ],
)
def test_targets(provider, photo, capsys, target, label):
    assert run(["certify", photo, "--target", target, "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["label"].startswith(label)
    Path("c.json").write_text(text)
    assert run(["verify", "c.json", "--photo", photo]) == 0


@pytest.mark.parametrize(
    "target",
    [
        "top0",
        "present",
        "present:bus",
        "absent::0.5",
        "present:a:2",
        "scores:",
        "scores:a:2",
        "scores:a:",
        "scores:a:0,5",
        "x",
    ],
)
def test_bad_targets(provider, photo, capsys, target):
    assert run(["certify", photo, "--target", target]) == 2
    assert capsys.readouterr().err
