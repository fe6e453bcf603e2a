"""`smoothapi certify` over many photos: what is shown, what it exits with, what is checked first."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from smoothapi import parts
from smoothapi.errors import PermanentError
from tests.conftest import ScriptedAdapter, answer, invoke
from tests.unit.many.conftest import save
from tests.unit.photos.conftest import body


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setenv("SMOOTHAPI_RADIUS", "0.1")
    monkeypatch.setenv("SMOOTHAPI_PLAIN", "false")

    def use(script=None):
        adapter = ScriptedAdapter(script)
        monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
        return adapter

    return use


def unsure(payload, attempt):
    return answer("bus" if payload[-13] % 2 else "van")


def test_a_folder_is_summed_up_and_a_broken_photo_decides_the_exit_code(folder, provider):
    provider()
    done = invoke("certify", folder)
    assert done.exit_code == 2
    assert "5 photos: 4 certified, 0 abstained, 1 failed." in done.stdout
    assert "Sent now:" in done.stdout
    assert "broken.jpg" in done.stderr
    (folder / "broken.jpg").unlink()
    assert invoke("certify", folder).exit_code == 0


def test_in_json_stdout_has_a_line_for_each_photo_and_nothing_else(folder, provider):
    provider()
    done = invoke("certify", folder, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    schemas = [row["schema"].partition("/")[0] for row in rows]
    assert schemas.count("smoothapi.certificate") == 4
    assert schemas.count("smoothapi.error") == 1
    assert "5 photos" in done.stderr


def test_an_abstention_among_many_exits_with_1(folder, provider):
    (folder / "broken.jpg").unlink()
    provider(unsure)
    assert invoke("certify", folder).exit_code == 1


def test_a_provider_that_fails_on_one_of_several_photos_is_reported_and_the_rest_go_on(
    folder, provider
):
    (folder / "broken.jpg").unlink()
    provider()
    assert invoke("certify", folder).exit_code == 0
    refusing = provider(lambda *_: PermanentError("no such picture"))
    photo = save(folder / "new.png", 50)
    done = invoke("certify", folder, photo)
    assert done.exit_code == 4
    assert "4 certified" in done.stdout
    assert "2 failed" in done.stdout  # the new one, in the folder and by its name
    assert refusing.sent


def test_fail_fast_ends_at_the_first_photo_that_fails(folder, provider):
    provider()
    done = invoke("certify", folder, "--fail-fast", "--photos-at-once", 1)
    assert done.exit_code == 2
    assert done.stderr.count("broken.jpg") == 1
    assert "deep" not in done.stdout
    assert ", 1 failed." in done.stdout
    [run] = [json.loads(line) for line in invoke("runs", "list", "--json").stdout.splitlines()]
    assert run["outcome"].startswith("ImageError: ")
    assert run["counts"]["failed"] == 1


def test_fail_fast_writes_down_the_photo_that_failed(folder, provider, tmp_path):
    provider()
    invoke("certify", folder, "--fail-fast", "--photos-at-once", 1, "--out", tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["photo"] for row in rows if row.get("error")] == [str(folder / "broken.jpg")]


def test_what_the_budgets_end_cut_short_is_counted_wherever_money_is_shown(folder, provider):
    """Photos under way, and answers under way, when another photo met the end."""
    (folder / "broken.jpg").unlink()
    adapter = provider(unsure)
    done = invoke("certify", folder, "--budget", 60, "--photos-at-once", 3, "--max-votes", 400)
    assert done.exit_code == 3
    sent = adapter.sent
    assert 50 < sent <= 60
    assert f"Sent now: {sent} queries (${sent / 1000:.4f})" in done.stdout
    assert f"Sent until then: {sent} (${sent / 1000:.4f})." in done.stderr
    [run] = [json.loads(line) for line in invoke("runs", "list", "--json").stdout.splitlines()]
    assert (run["attempts"], run["dollars"]) == (sent, sent / 1000)
    assert run["settings"]["budget"] == "60 attempts a run"


def test_a_radius_that_no_votes_reach_is_refused_once_and_before_the_first(folder, provider):
    adapter = provider()
    done = invoke("certify", folder, "--radius", 0.6, "--max-votes", 100)
    assert done.exit_code == 2
    assert done.stderr.count("needs at least") == 1
    assert not adapter.sent


def test_the_budgets_end_exits_with_3_and_what_was_done_is_shown(folder, provider):
    adapter = provider()
    invoke("certify", folder / "deep" / "c.png")
    photos, budget = (folder / "a.png", folder / "b.png"), adapter.sent + 1
    done = invoke("certify", *photos, "--budget", budget, "--photos-at-once", 1)
    assert done.exit_code == 3
    assert "1 photo: 1 certified, 0 abstained, 0 failed. 1 more came to no end." in done.stdout


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        (["gone.png", "{folder}"], "gone.png"),
        (["{folder}/*.bmp"], "No file matches"),
        (["{folder}/empty"], "no photos in the folder"),
        (["ftp://host/a.jpg"], "cannot be fetched"),
        (["https://127.0.0.1/a.jpg"], "private, or of this machine"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_paid_for(folder, provider, photos, said):
    adapter = provider()
    (folder / "empty").mkdir()
    done = invoke("certify", *(name.format(folder=folder) for name in photos))
    assert done.exit_code == 2
    assert said in done.stderr
    assert adapter.sent == 0


def test_a_pattern_stands_for_the_files_that_match_unless_a_file_has_that_name(folder, provider):
    provider()
    done = invoke("certify", folder / "**" / "*.png", "--json")
    assert len(done.stdout.splitlines()) == 4
    odd = save(folder / "odd[1].png", 70)
    done = invoke("certify", odd, "--json")
    assert json.loads(done.stdout)["image"]["name"] == "odd[1].png"


def test_a_folder_below_that_cannot_be_read_is_a_failure_and_the_rest_go_on(
    folder, provider, monkeypatch
):
    provider()
    (folder / "broken.jpg").unlink()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = invoke("certify", folder, "--out", "r.jsonl")
    assert done.exit_code == 2
    assert f"Cannot read the folder '{folder / 'deep'}': Permission denied." in done.stderr
    assert "3 photos: 2 certified, 0 abstained, 1 failed." in done.stdout
    assert invoke("certify", folder, "--dry-run").exit_code == 2
    assert invoke("study", folder, "--provider", "mock").exit_code == 2
    done = invoke("certify", folder / "deep")
    assert done.exit_code == 2
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("name", ["a b%20c.png", "=1+1.png", "\u202eé.png", "back\\slash.png"])
def test_a_row_of_an_oddly_named_photo_verifies(name, folder, provider):
    provider()
    save(folder / name, 5)
    assert invoke("certify", folder / name, "--out", "r.jsonl").exit_code == 0
    assert invoke("verify", "r.jsonl").exit_code == 0


def test_a_dry_run_of_a_folder_sends_nothing(folder, provider):
    adapter = provider()
    (folder / "broken.jpg").unlink()
    done = invoke("certify", folder, "--dry-run", "--json")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 4
    assert adapter.sent == 0


def test_predict_takes_the_same(folder, provider):
    provider()
    done = invoke("predict", folder, "--json", "--out", "results.csv")
    assert done.exit_code == 2
    assert '"kind": "predict"' in done.stdout


def test_a_photo_is_fetched_from_an_address_of_ones_own(folder, provider, web):
    provider()
    web.pages["/a.png"] = body((folder / "a.png").read_bytes())
    location = f"{web.url}/a.png?token=secret"
    assert invoke("certify", location).exit_code == 2
    done = invoke("certify", location, "--allow-private", "--out", "r.jsonl")
    assert done.exit_code == 0
    assert "secret" not in done.output
    row = json.loads(Path("r.jsonl").read_text())
    digest = hashlib.sha256(b"?token=secret").hexdigest()[:8]
    assert row["photo"] == f"{web.url}/a.png?...{digest}"
    assert row["certificate"]["image"]["name"] == "a.png"
    assert invoke("verify", "r.jsonl").exit_code == 0
    assert "secret" not in Path("r.jsonl").read_text()
