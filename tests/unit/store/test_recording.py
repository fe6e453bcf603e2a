"""Record and replay: complete, durable, without secrets, and the same elsewhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from smoothapi import Answer, Label, Presence, Retry, Smoother
from smoothapi.cli import run
from smoothapi.encode import Codec
from smoothapi.errors import PermanentError, StoreError, TransientError, UsageError
from smoothapi.provider import Limits
from smoothapi.store import Recorder, Replay, StoredAnswer, answer_key, read_recording
from smoothapi.store.local.answers import AnswerStore
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import ScriptedAdapter, answer, with_noise_key

PHOTO = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
OTHER = np.random.default_rng(2).integers(0, 256, (12, 16, 3), dtype=np.uint8)
CHANCES = {"bus": 0.95, "van": 0.03, None: 0.02}
RADIUS = 0.1


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.jsonl"


def smoother(provider=None, **options):
    options.setdefault("denoiser", "none")
    options.setdefault("retry", Retry(attempts=3, base=0.001, cap=0.002))
    return Smoother(provider or MockAdapter(CHANCES, seed=2), radius=RADIUS, size=12, **options)


def record(file, photos=(PHOTO,), provider=None, **options):
    with smoother(provider, record=file, **options) as s:
        return [s.certify(photo) for photo in photos]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another machine: another noise key, no answers, no adapter, no denoiser."""
    home = with_noise_key(tmp_path / "elsewhere", bytes(range(32, 64)))
    monkeypatch.setenv("SMOOTHAPI_HOME", str(home))
    return home


def lines(file):
    return file.read_text().splitlines()


def rows(file):
    return [row for row, _ in read_recording(file)]


def test_a_replay_elsewhere_gives_the_same_certificates_and_says_that_it_is_one(file, elsewhere):
    first = record(file, [PHOTO, OTHER], home=with_noise_key(elsewhere / "one"))
    with smoother(f"replay:{file}") as s:
        again = [s.certify(photo) for photo in (PHOTO, OTHER)]
        assert s.plan(PHOTO).at_most == 0
    assert again == first
    for one, two in zip(first, again, strict=True):
        assert two.votes == one.votes
        assert two.denoiser == one.denoiser
        assert (two.replayed_from, one.replayed_from) == ("answers.jsonl", "")
        assert "replayed from answers.jsonl" in str(two)
        assert "replayed" not in str(one)
        assert "Replayed from" in two._repr_html_()
        assert type(two).from_json(two.to_json()).replayed_from == "answers.jsonl"
        assert (two.queries, two.attempts, two.cost) == (0, 0, 0.0)
        assert two.cached == one.total_votes + 1
    assert not (elsewhere / "answers").exists()


def test_another_target_is_read_off_the_same_answers(file, elsewhere):
    adapter = ScriptedAdapter(lambda *_: Answer((Label("Weapon", 0.9), Label("Person", 0.8))))
    record(file, provider=adapter)
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO, target=Presence("Person", 0.5)).abstained is False


def test_a_replay_loads_neither_the_provider_nor_a_denoiser_nor_a_key(file, tmp_path):
    [first] = record(file, provider=ScriptedAdapter())
    script = f"""
import sys, numpy as np
from smoothapi import Smoother
photo = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
with Smoother("replay:{file}", radius={RADIUS}, size=12, home={str(tmp_path / "new")!r}) as s:
    print(s.certify(photo).label)
loaded = {{"torch", "boto3", "smoothapi_adapters", "smoothapi_adapters.mock"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == first.label
    assert not (tmp_path / "new" / "noise.key").exists()


def test_what_a_recording_holds_and_what_not(file, elsewhere):
    adapter = MockAdapter(CHANCES, seed=2)
    sent = []
    ask = adapter.ask
    adapter.ask = lambda payloads: sent.extend(payloads) or ask(payloads)
    [certificate] = record(file, provider=adapter)
    head, *body = map(json.loads, lines(file))
    assert head["schema"] == "smoothapi.recording/1"
    assert len(body) == certificate.total_votes + 1 == len(sent)
    assert {row["payload"] for row in body} == {hashlib.sha256(p).hexdigest() for p in sent}
    asked = [row["asked"] for row in body if "plain" not in row["asked"]]
    assert sorted(a["index"] for a in asked) == list(range(certificate.total_votes))
    text = file.read_text()
    key = (elsewhere / "noise.key").read_bytes()
    assert key.hex() not in text
    assert certificate.noise_key in text
    assert max(len(line) for line in text.splitlines()) < 1000  # no picture fits


def test_answers_from_the_store_are_recorded_too_and_none_twice(file):
    with smoother() as s:
        first = s.certify(PHOTO)
    again = record(file)
    assert again == [first]
    assert again[0].queries == 0
    before = lines(file)
    assert record(file) == [first]
    assert [line for line in lines(file) if '"asked"' in line] == [
        line for line in before if '"asked"' in line
    ]
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO) == first


def test_a_plan_records_nothing(file):
    with smoother() as s:
        s.certify(PHOTO)
    with smoother(record=file) as s:
        s.plan(PHOTO)
    assert rows(file) == []


def test_asked_again_the_later_answer_counts(file, elsewhere):
    record(file, provider=ScriptedAdapter(lambda *_: answer("bus")))
    [second] = record(file, provider=ScriptedAdapter(lambda *_: answer("van")), refresh=True)
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO).label == second.label == "van"


def test_failures_are_votes_in_the_replay_too(file, elsewhere, monkeypatch):
    seen = {}

    def script(payload, attempt):
        number = seen.setdefault(payload, len(seen))
        if number % 25 == 3:
            return PermanentError("bad picture")
        return TransientError("busy") if number % 25 == 7 else answer()

    monkeypatch.setenv("SMOOTHAPI_MAX_FAILED", "0.5")
    adapter = ScriptedAdapter(script)
    [first] = record(file, provider=adapter, concurrency=1, retry=Retry(attempts=2, base=0.001))
    assert first.failed >= 2
    kinds = {kind for row in rows(file) for kind in ("answer", "failed", "gave_up") if kind in row}
    assert kinds == {"answer", "failed", "gave_up"}
    with smoother(f"replay:{file}") as s:
        again = s.certify(PHOTO)
    assert again == first
    assert again.failed == first.failed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"photo": OTHER}, "nothing of this photo .working image"),
        ({"size": 10}, "have 16 x 12 pixels; this one has 13 x 10: give the size"),
        ({"sigma": 0.5}, "sigma 0.5. It holds 0.25"),
        ({"radius": 0.3}, r"variant \d+ at sigma 0.25. It holds \d+ variants, 0 to \d+: as many"),
    ],
)
def test_a_miss_says_what_is_missing(file, change, says):
    record(file)
    options = {"size": 12, "radius": RADIUS, **change}
    photo = options.pop("photo", PHOTO)
    with Smoother(f"replay:{file}", **options) as s:
        with pytest.raises(UsageError, match=says) as caught:
            s.certify(photo)
    assert caught.value.attempts == 0
    assert "'answers.jsonl'" in str(caught.value)
    assert "array" in str(caught.value)  # the photo's name


def test_a_plain_label_that_was_not_recorded(file):
    [first] = record(file, plain=False)
    with smoother(f"replay:{file}") as s, pytest.raises(UsageError, match="Give plain=False"):
        s.certify(PHOTO)
    with smoother(f"replay:{file}", plain=False) as s:
        assert s.certify(PHOTO) == first


def test_one_photo_of_several_missing_does_not_keep_the_others(file, capsys, tmp_path):
    for name, picture in (("a.png", PHOTO), ("b.png", OTHER)):
        Image.fromarray(picture).save(tmp_path / name)
    record(file, [PHOTO])
    photos = [str(tmp_path / name) for name in ("b.png", "a.png")]
    options = ["--size", "12", "--radius", str(RADIUS), "--json"]
    assert run(["certify", *photos, "--provider", f"replay:{file}", *options]) == 2
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert "nothing of this photo" in bad["message"]
    assert good["replayed_from"] == "answers.jsonl"


def test_several_sources_must_be_chosen(file, elsewhere):
    calm = record(file, provider=MockAdapter(CHANCES, seed=2, labeller_id="calm"))
    mild = record(file, provider=MockAdapter(CHANCES, seed=3, labeller_id="mild"))
    with pytest.raises(
        UsageError, match=r"2 kinds.*#NAME=VALUE one of: labeller=calm, labeller=mild"
    ):
        smoother(f"replay:{file}")
    for name, certificates in (("calm", calm), ("mil", mild)):
        with smoother(f"replay:{file}#labeller={name}") as s:
            assert [s.certify(PHOTO)] == certificates
    with pytest.raises(UsageError, match="0 fit what was chosen"):
        smoother(f"replay:{file}#labeller=wild")
    with pytest.raises(UsageError, match="0 fit what was chosen"):
        smoother(f"replay:{file}#colour=red")
    other = with_noise_key(elsewhere / "other", bytes(range(64, 96)))
    record(file, provider=MockAdapter(CHANCES, seed=2, labeller_id="calm"), home=other)
    with pytest.raises(UsageError, match=r"noise=[0-9a-f]{16}, noise="):
        smoother(f"replay:{file}#labeller=calm")
    with smoother(f"replay:{file}#labeller=calm,noise={calm[0].noise_key[:6]}") as s:
        assert s.certify(PHOTO) == calm[0]


def test_recordings_may_be_joined(file, tmp_path):
    whole = tmp_path / "whole.jsonl"
    certificates = []
    for name, photo in (("a", PHOTO), ("b", OTHER)):
        certificates += record(tmp_path / name, [photo])
        with whole.open("a") as stream:
            stream.write((tmp_path / name).read_text())
    with smoother(f"replay:{whole}") as s:
        assert [s.certify(photo) for photo in (PHOTO, OTHER)] == certificates


def test_an_export_is_a_recording_and_both_are_imported(file, tmp_path, capsys):
    [first] = record(file)
    exported = tmp_path / "exported.jsonl"
    assert run(["cache", "export", str(exported)]) == 0
    with smoother(f"replay:{exported}") as s:
        again = s.certify(PHOTO)
    # A store does not know what a denoiser is called, only its fingerprint.
    assert replace(again, denoiser=first.denoiser) == first
    assert again.denoiser == first.denoiser_fingerprint
    said = [sorted(json.loads(line)["payload"] for line in lines(f)[1:]) for f in (file, exported)]
    assert said[0] == said[1]
    for source in (file, exported):
        home = tmp_path / f"home of {source.name}"
        assert run(["cache", "--home", str(home), "import", str(source)]) == 0
        assert f"Imported {first.total_votes + 1} answers" in capsys.readouterr().out
        again = tmp_path / f"{source.name}.again"
        assert run(["cache", "--home", str(home), "export", str(again)]) == 0
        assert sorted(json.loads(line)["payload"] for line in lines(again)[1:]) == said[0]


def test_what_was_given_up_is_not_imported(file, tmp_path, capsys):
    store = AnswerStore(tmp_path / "store")
    recorder = Recorder(store, file)
    asked = {"provider": "x", "identity": {}, "codec": "png/1", "image": "i", "size": [1, 1]}
    recorder.give_up({**asked, "index": 0}, "busy")
    recorder.put(
        StoredAnswer({**asked, "index": 1}, answer(), hashlib.sha256(b"payload").hexdigest())
    )
    recorder.close()
    store.close()
    assert run(["cache", "--home", str(tmp_path / "new"), "import", str(file)]) == 0
    assert "Imported 1 answers" in capsys.readouterr().out


def test_the_command_line_records_and_replays(file, elsewhere, capsys, monkeypatch, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__MOCK__LABELLER", "probabilities:bus 95%, none 5%")
    options = ["--size", "12", "--radius", "0.1", "--denoiser", "none"]
    command = ["certify", str(tmp_path / "photo.png"), *options]
    assert run([*command, "--record", str(file), "--json"]) == 0
    assert run([*command, "--provider", f"replay:{file}", "--json"]) == 0
    assert run([*command, "--provider", f"replay:{file}"]) == 0
    first, second, *human = capsys.readouterr().out.splitlines()
    first, second = json.loads(first), json.loads(second)
    for name in ("label", "votes", "radius", "radius_native", "noise_key", "identity"):
        assert first[name] == second[name]
    assert "answers.jsonl" in "\n".join(human)
    monkeypatch.setenv("SMOOTHAPI_RECORD", str(tmp_path / "by variable.jsonl"))
    assert run([*command, "--json"]) == 0
    assert (tmp_path / "by variable.jsonl").exists()


def test_a_last_line_that_was_cut_off_is_left_out_with_a_warning_and_mended(file, caplog):
    [first] = record(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with caplog.at_level(logging.WARNING, "smoothapi"):
        with smoother(f"replay:{file}") as s, pytest.raises(UsageError, match="variant"):
            s.certify(PHOTO)
    assert "cut off" in caplog.text
    assert record(file) == [first]  # continued, from the store
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO) == first
    assert run(["cache", "--home", "new", "import", str(file)]) == 0


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"schema": 2, "asked": {}}',
        '{"a": 1}',
        "label;score",
        '{"schema": "smoothapi.recording/9"}',
        '{"schema": 1, "asked": {"provider": "x"}, "answer": {"labels": [], "model_version": "", "request_id": ""}}',
        '{"schema": 1, "asked": 3, "failed": "x"}',
    ],
)
def test_a_line_that_is_no_answer_is_named(file, line):
    record(file)
    with file.open("a") as stream:
        stream.write(line + "\n")
    number = len(lines(file))
    for use in (
        lambda: smoother(f"replay:{file}"),
        lambda: smoother(record=file),
        lambda: list(read_recording(file)),
    ):
        with pytest.raises(UsageError, match=f"Line {number} of the recording"):
            use()


def test_a_changed_answer_is_refused_unless_it_was_meant(file, elsewhere):
    record(file)
    changed = file.read_text().replace('"bus"', '"cat"')
    file.write_text(changed)
    with pytest.raises(UsageError, match=r'Line . of .*was changed since it was written.*"check"'):
        smoother(f"replay:{file}")
    meant = [json.loads(line) for line in changed.splitlines()]
    file.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "check"}) + "\n" for row in meant)
    )
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO).label == "cat"


@pytest.mark.parametrize("what", ["photo", "nothing", "folder", "empty"])
def test_what_is_no_recording_is_neither_read_nor_written_to(tmp_path, what):
    path = tmp_path / "it"
    if what == "photo":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    elif what == "folder":
        path.mkdir()
    elif what == "empty":
        path.touch()
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UsageError):
        smoother(f"replay:{path}")
    if what in ("photo", "folder"):
        with pytest.raises((UsageError, StoreError)):
            smoother(record=path)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_replay_cannot_ask_again(file):
    record(file)
    with pytest.raises(UsageError, match="cannot ask again"):
        smoother(f"replay:{file}", refresh=True)


def test_a_replay_can_be_recorded(file, tmp_path, elsewhere):
    first = record(file, [PHOTO, OTHER])[0]
    part = tmp_path / "part.jsonl"
    with smoother(f"replay:{file}", record=part) as s:
        s.certify(PHOTO)
    with smoother(f"replay:{part}") as s:
        assert s.certify(PHOTO) == first
        with pytest.raises(UsageError, match="nothing of this photo"):
            s.certify(OTHER)


def test_threads_and_batches_write_whole_lines(file):
    adapter = MockAdapter({"bus": 1.0}, limits=Limits(batch=4), latency="uniform 0 0.002")
    with smoother(adapter, record=file, concurrency=8) as s:
        photos = [np.full((12, 12, 3), n, np.uint8) for n in range(6)]
        workers = [threading.Thread(target=s.certify, args=(photo,)) for photo in photos]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
    assert len(rows(file)) == adapter.billed


WRITER = """
import sys
from pathlib import Path
from smoothapi.answer import Answer, Label
from smoothapi.store import StoredAnswer, Recorder
from smoothapi.store.local.answers import AnswerStore
name, file = sys.argv[1:]
store = AnswerStore(Path(name))
recorder = Recorder(store, file)
asked = {"provider": name, "identity": {}, "codec": "png/1", "image": "i", "size": [1, 1]}
print("go", flush=True)
for index in range(100_000 if name == "killed" else 300):
    recorder.put(StoredAnswer({**asked, "index": index}, Answer((Label("x" * 3000, 0.5),))))
    if index % 50 == 0:
        print(index, flush=True)
"""


def test_two_processes_lose_and_mix_nothing(file):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, str(file)]) for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    got = {(row["asked"]["provider"], row["asked"]["index"]) for row in rows(file)}
    assert got == {(name, index) for name in "ab" for index in range(300)}


def test_a_killed_process_loses_at_most_the_line_it_was_writing(file):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, "killed", str(file)], stdout=subprocess.PIPE, text=True
    )
    while writer.stdout.readline().strip() != "100":
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    got = sorted(row["asked"]["index"] for row in rows(file))
    assert got == list(range(len(got)))
    assert len(got) > 100
    store = AnswerStore(Path("killed"))
    assert len(store) - len(got) in (0, 1)  # stored first, then recorded
    store.close()


def test_a_full_disk_stops_the_run_and_the_answer_is_in_the_store(file, tmp_path, monkeypatch):
    store = AnswerStore(tmp_path / "store")
    recorder = Recorder(store, file)
    asked = {"provider": "x", "identity": {}, "codec": "png/1", "image": "i", "size": [1, 1]}
    recorder.put(StoredAnswer({**asked, "index": 0}, answer()))
    real = os.write

    def nearly_full(descriptor, data):
        if descriptor != recorder._file:
            return real(descriptor, data)
        if len(data) <= 100:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:-100])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(StoreError, match="No space left"):
        recorder.put(StoredAnswer({**asked, "index": 1}, answer()))
    monkeypatch.setattr(os, "write", real)
    assert store.get(answer_key({**asked, "index": 1})) == answer()
    recorder.put(StoredAnswer({**asked, "index": 2}, answer()))
    recorder.close()
    store.close()
    assert [row["asked"]["index"] for row in rows(file)] == [0, 2]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        smoother(record=tmp_path / "nowhere" / "answers.jsonl")


def test_odd_labels_survive(file, tmp_path):
    odd = "\ud800\u2028\n\x00 \u202e<script>"
    store = AnswerStore(tmp_path / "store")
    recorder = Recorder(store, file)
    asked = {"provider": "x", "identity": {}, "codec": "png/1", "image": "i", "size": [1, 1]}
    recorder.put(StoredAnswer(asked, Answer((Label(odd, 0.5),))))
    recorder.close()
    store.close()
    [(_, outcome)] = read_recording(file)
    assert outcome.labels[0].name == odd
    assert Replay(str(file)).get(answer_key(asked)) == outcome


def test_pictures_sent_as_they_are_are_kept_and_in_nobodys_way(file):
    with smoother(record=file) as s:
        first = s.certify(PHOTO)
        s.session.ask(Codec().encode(PHOTO))
    assert [row["asked"] for row in rows(file) if "image" not in row["asked"]]
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO) == first
        with pytest.raises(UsageError, match="nothing of this photo"):
            s.certify(OTHER)


def test_a_path_may_hold_a_number_sign(tmp_path):
    file = tmp_path / "run#size=12.jsonl"
    [first] = record(file)
    with smoother(f"replay:{file}") as s:
        assert s.certify(PHOTO) == first


def test_the_disk_is_waited_for_once_a_second_not_once_a_line(file, tmp_path, monkeypatch):
    clock, synced = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(
        "smoothapi.store.recording.time", SimpleNamespace(monotonic=lambda: clock.now)
    )
    store = AnswerStore(tmp_path / "store")
    recorder = Recorder(store, file)
    monkeypatch.setattr(os, "fsync", synced.append)
    for _ in range(3):
        clock.now += 1.5
        for _ in range(500):
            recorder._append("x" * 400 + "\n")
    assert synced == [recorder._file] * 3
    recorder.close()
    assert len(synced) == 4
    store.close()
