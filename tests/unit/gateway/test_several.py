"""Several gateways on one database: a token, and a certificate, of one are the others', too."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from time import sleep

import pytest
import requests

from smoothapi.address import DatabaseAddress
from smoothapi.errors import StoreError
from smoothapi.gateway import Records
from smoothapi.gateway.records import FRESH, WITHOUT
from smoothapi.services import serve
from smoothapi.store import Home, Token, open_home
from smoothapi.store.local.records import LocalRecords
from tests.conftest import invoke
from tests.unit.gateway.conftest import post
from tests.unit.wrapping.conftest import labeller

pytestmark = pytest.mark.timeout(120)


class Far(LocalRecords):
    """Tokens that are on another machine, by what they are told apart: each look counts."""

    shared = True

    def __init__(self, path, clock):
        super().__init__(path, clock)
        self.looks, self.is_away = 0, False
        self.looking, self.answers = threading.Event(), threading.Event()
        self.answers.set()

    def tokens(self):
        self.looks += 1
        self.looking.set()
        self.answers.wait(30)
        if self.is_away:
            raise StoreError("The database is away.")
        return super().tokens()


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def far(tmp_path, now):
    with closing(Far(tmp_path / "far.db", lambda: now[0])) as kept:
        yield kept


@pytest.fixture
def records(far, now):
    return Records(far, clock=lambda: now[0])


def test_a_token_of_another_machine_is_looked_for_once_in_a_while(far, records, now):
    token = records.add_token("team")
    assert records.waits_for(token)
    assert records.caller(token).name == "team"
    assert far.looks == 1
    for _ in range(50):
        assert not records.waits_for(token)
        assert records.caller(token).name == "team"
    assert far.looks == 1
    now[0] += FRESH
    assert records.waits_for(token)
    assert records.caller(token).name == "team"
    assert far.looks == 2


def test_a_token_that_was_removed_elsewhere_lets_nobody_in_seconds_later(far, records, now):
    token = records.add_token("team")
    assert records.caller(token)
    far.remove_token("team")
    now[0] += FRESH
    assert records.caller(token) is None


def test_a_token_that_was_made_elsewhere_lets_in_at_once(far, records, now):
    assert records.caller(f"sgw_{'0' * 16}_{'0' * 48}") is None
    token = Records(far).add_token("new")
    now[0] += 0.25
    assert records.caller(token).name == "new"


def test_strangers_do_not_have_the_database_asked_for_each_of_them(far, records, now):
    for number in range(1000):
        now[0] += 0.001
        assert records.caller(f"sgw_{number:016x}_{'0' * 48}") is None
    assert far.looks <= 6


def test_while_the_database_is_away_nobody_waits_for_it_in_turn(far, records, now):
    token = records.add_token("team")
    far.is_away = True
    for _ in range(20):
        with pytest.raises(StoreError, match="away"):
            records.caller(token)
    assert far.looks == 1
    far.is_away = False
    now[0] += 0.25
    assert records.caller(token).name == "team"


def test_a_database_that_never_answers_keeps_nobody_and_is_asked_once(
    far, records, now, monkeypatch
):
    token, other = records.add_token("team"), records.add_token("other")
    assert records.caller(token).name == "team"
    far.looking.clear()
    far.answers.clear()
    with monkeypatch.context() as while_it_is_away:
        while_it_is_away.setattr("smoothapi.gateway.records._LOOK", 0.05)
        for _ in range(5):
            now[0] += FRESH
            assert records.caller(token).name == "team"
            with pytest.raises(StoreError, match=r"has not answered for 0\.05 s"):
                records.caller(f"sgw_{'0' * 16}_{'0' * 48}")
    assert far.looking.wait(30)
    assert far.looks == 2
    far.remove_token("other")
    far.answers.set()
    for thread in threading.enumerate():
        if thread.name == "smoothapi-tokens":
            thread.join()
    now[0] += FRESH
    assert records.caller(other) is None
    assert records.caller(token).name == "team"
    assert far.looks == 3


def test_who_was_known_is_let_in_while_the_database_is_away_but_not_for_long(far, records, now):
    token = records.add_token("team")
    assert records.caller(token)
    far.is_away = True
    now[0] += WITHOUT - 1.0
    assert records.caller(token).name == "team"
    with pytest.raises(StoreError, match="away"):  # a stranger may be somebody by now
        records.caller(f"sgw_{'0' * 16}_{'0' * 48}")
    assert records.caller(f"{token[:-1]}{'0' if token[-1] != '0' else '1'}") is None
    now[0] += 1.0
    with pytest.raises(StoreError, match="away"):
        records.caller(token)


def test_a_token_that_was_removed_in_an_outage_lets_nobody_in_after_it(far, records, now):
    token = records.add_token("team")
    assert records.caller(token)
    far.is_away = True
    now[0] += FRESH
    assert records.caller(token)
    far.remove_token("team")
    far.is_away = False
    now[0] += 0.25
    assert records.caller(token) is None


def test_in_an_outage_one_waits_for_the_database_and_nobody_for_that_one(
    far, records, now, monkeypatch
):
    monkeypatch.setattr("smoothapi.gateway.records._LOOK", 60.0)
    token, other = records.add_token("team"), f"sgw_{'0' * 16}_{'0' * 48}"
    assert records.caller(token)
    far.is_away = True
    now[0] += FRESH
    assert records.caller(token).name == "team"
    now[0] += 1.0
    looking, over = threading.Event(), threading.Event()
    plain = far.tokens

    def hangs():
        looking.set()
        over.wait(30)
        return plain()

    far.tokens = hangs
    waiting = threading.Thread(target=records.caller, args=(token,))
    waiting.start()
    try:
        assert looking.wait(30)
        assert records.caller(token).name == "team"
        with pytest.raises(StoreError, match="away"):
            records.caller(other)
        assert waiting.is_alive()
    finally:
        over.set()
        waiting.join()


def test_of_many_who_come_at_once_one_looks(far, records):
    token = records.add_token("team")
    begin = threading.Barrier(8)
    found = []

    def calling():
        begin.wait(30)
        found.append(records.caller(token).name)

    threads = [threading.Thread(target=calling) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, far.looks) == (["team"] * 8, 1)


def test_half_characters_from_outside_are_kept_in_some_way(far, records):
    class Found:
        ended, certified, why = "", False, "no \ud800 label\0"

        def to_dict(self):
            return {"labels": [{"name": "\ud800\0"}]}

    kept = records.record(records.keep("team", "aws", "Detect\udfffLabels", Found()))
    assert (kept.operation, kept.why) == ("Detect?Labels", "no ? label\N{REPLACEMENT CHARACTER}")
    assert kept.finding == {"labels": [{"name": "\ud800\0"}]}
    assert records.record("\udfff\0") is None


class Nothing:
    """What is found about a picture."""

    ended, certified, why = "", False, "nothing"

    def to_dict(self):
        return {}


def test_who_may_not_wait_is_told_what_was_known_also_when_it_has_just_grown_old(far, records, now):
    token = records.add_token("team")
    assert records.caller(token)
    now[0] += FRESH
    assert records.caller(token, look=False).name == "team"
    assert far.looks == 1


def test_a_certificate_is_kept_though_older_ones_cannot_be_forgotten(far, records, caplog):
    far.forget = lambda _: (_ for _ in ()).throw(StoreError("The database is away."))
    assert records.record(records.keep("team", "aws", "DetectLabels", Nothing())).caller == "team"
    assert "not forgotten" in caplog.text


@pytest.mark.parametrize("days", [1e7, 1e300])
def test_certificates_may_be_kept_for_ever(days, database, noise_key_file, caplog):
    with closing(open_home(DatabaseAddress(database), noise_key_file)) as home:
        records = Records(home.records, keep_days=days)
        assert records.record(records.keep("team", "aws", "DetectLabels", Nothing()))
    assert not caplog.records


# As the gateway of 0.1 made it.
FILE_OF_0_1 = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, digest BLOB NOT NULL, budget TEXT NOT NULL,
    per_second REAL, operator INTEGER NOT NULL, made REAL NOT NULL
);
CREATE TABLE certificates (
    id TEXT PRIMARY KEY, at REAL NOT NULL, caller TEXT NOT NULL, provider TEXT NOT NULL,
    operation TEXT NOT NULL, outcome TEXT NOT NULL, why TEXT NOT NULL, finding TEXT NOT NULL
);
PRAGMA user_version = 1;
INSERT INTO tokens VALUES ('0123456789abcdef', 'anna', x'00ff', '$5/month', 2.0, 1, 1.5);
INSERT INTO certificates VALUES (
    '0123456789abcdef0123456789abcdef', 2.5, 'anna', 'aws', 'DetectLabels', 'budget', 'none left',
    '{"labels": []}'
);
"""


def test_the_file_of_an_earlier_gateway_is_read(tmp_path):
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as file:
        file.executescript(FILE_OF_0_1)
    with closing(Home(tmp_path).records) as kept:
        found = Token(
            "0123456789abcdef", "anna", b"\0\xff", "$5/month", 2.0, operator=True, made=1.5
        )
        assert kept.tokens() == [found]
        [record] = kept.latest(5)
        assert (record.id[:16], record.at, record.why) == (found.id, 2.5, "none left")
        assert record.finding == {"labels": []}


def test_pods_on_one_database_share_tokens_and_certificates(
    database, noise_key_file, start, tmp_path
):
    home = {"home": database, "certify": {"noise_key_file": str(noise_key_file)}}
    with serve("aws", labeller) as service:
        pods = [start("aws", service, callers="tokens", **home) for _ in range(2)]
        file = tmp_path / "gateway.toml"
        file.write_text(f'[certify]\nhome = "{database}"\n[providers.aws]\nbudget = "$1/day"\n')
        made = invoke("serve", "token", "add", "team", "--config", file, "--json")
        assert made.exit_code == 0, made.stderr
        shown = {"x-smoothapi-token": json.loads(made.stdout)["token"]}
        identities = []
        for pod in pods:
            found = post(pod.url, "aws", headers=shown)
            assert found.headers["x-smoothapi-outcome"] == "certified"
            identities.append(found.headers["x-smoothapi-certificate"])
        for pod in pods:
            for identity in identities:
                url = f"{pod.url}/smoothapi/certificates/{identity}"
                assert requests.get(url, timeout=20).status_code == 401
                kept = requests.get(url, headers=shown, timeout=20)
                assert (kept.status_code, kept.json()["id"]) == (200, identity)
        assert "team" in invoke("serve", "token", "list", "--config", file).stdout
        assert invoke("serve", "token", "remove", "team", "--config", file).exit_code == 0
        for pod in pods:
            while post(pod.url, "aws", headers=shown).status_code == 200:
                sleep(0.2)
            refused = post(pod.url, "aws", headers=shown)
            assert refused.json()["__type"] == "UnrecognizedClientException"


def test_a_database_that_is_away_is_told_in_the_providers_words(far, start, monkeypatch):
    with serve("aws", labeller) as service:
        gateway = start("aws", service, callers="tokens")
        records = Records(far)
        shown = {"x-smoothapi-token": records.add_token("team")}
        monkeypatch.setattr(gateway.app.gateway, "records", records)
        assert post(gateway.url, "aws", headers=shown).status_code == 200
        far.is_away = True
        monkeypatch.setattr(gateway.app.gateway, "records", Records(far))
        found = post(gateway.url, "aws", headers=shown)
        assert (found.status_code, found.headers["x-smoothapi-outcome"]) == (500, "failed")
        assert "away" not in found.text
