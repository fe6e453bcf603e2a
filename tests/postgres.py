"""A PostgreSQL of the tests' own: on a socket in a folder of its own, gone when they end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

_BINARIES = Path("/usr/lib/postgresql")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a crash of the server is tested, one of the machine is not
    "shared_buffers": "16MB",
    "max_connections": "60",
    "logging_collector": "off",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}


def binaries():
    """Return the folder of the newest server that is installed, None without one."""
    found = sorted(_BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


class Postgres:
    """A server; stop and start it as a test needs."""

    def __init__(self, **settings):
        self._bin = binaries()
        # Short: the name of a socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._settings = {**_SETTINGS, "unix_socket_directories": str(self.folder), **settings}
        self._as = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process = None
        self._databases = 0
        self._shared = None
        self._ahead = 0.0
        self._run(
            "initdb", "-D", self.folder / "data", "-U", "tester", "-A", "trust", "-E", "UTF8",
            "--no-locale", "--no-sync",
        )  # fmt: skip
        self.start()

    def start(self):
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", *options],
                stdout=log, stderr=log, cwd=self.folder, **self._as,
            )  # fmt: skip
        end = time.monotonic() + 120.0  # after a crash, on a busy machine
        while time.monotonic() < end:
            if self._ready():
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])

    def stop(self, how=signal.SIGQUIT):
        """End it at once, as a crash does; SIGINT ends it in order."""
        self._process.send_signal(how)
        self._process.wait(120)

    def close(self):
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database="postgres"):
        return f"postgresql://tester@/{database}?host={self.folder}"

    def new_database(self):
        """Return the address of an empty database."""
        self._databases += 1
        name = f"d{self._databases}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, statement, url=None):
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def empty(self):
        """Return the address of a database that smoothapi has made, and that holds nothing."""
        from smoothapi.address import DatabaseAddress
        from smoothapi.store.postgres import PostgresHome

        if self._shared is None:
            self._shared = self.new_database()
            PostgresHome(DatabaseAddress(self._shared)).close()
            rows = self.sql(
                "SELECT string_agg('smoothapi.' || tablename, ', ') FROM pg_tables "
                "WHERE schemaname = 'smoothapi' AND tablename <> 'about'",
                self._shared,
            )
            self._tables = rows[0][0]
        self.sql(f"TRUNCATE {self._tables}", self._shared)
        # No day or month ends in the middle of a test.
        left = 86_400.0 - time.time() % 86_400.0
        self._ahead = left + 60.0 if left < 600.0 else 0.0
        self.set_clock(self._shared, 0.0)
        return self._shared

    def set_clock(self, url, seconds):
        """Set the server's clock, as smoothapi sees it, forward."""
        seconds += self._ahead
        self.sql(
            "CREATE OR REPLACE FUNCTION smoothapi.moment() RETURNS timestamptz LANGUAGE sql "
            f"VOLATILE AS $$ SELECT clock_timestamp() + {seconds} * interval '1 second' $$",
            url,
        )

    @property
    def socket(self):
        return self.folder / ".s.PGSQL.5432"

    def _ready(self):
        import psycopg

        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program, *arguments):
        subprocess.run(
            [self._bin / program, *arguments],
            check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **self._as,
        )  # fmt: skip


class Away:
    """A database behind a proxy, and how it goes away and comes back.

    Args:
        how: "refusing", as a server that is down; "silent", as one that never answers.
    """

    def __init__(self, postgres, url, how):
        self._proxy, self._how = Proxy(postgres.socket), how
        name = url.partition("?")[0].rpartition("/")[2]
        self.url = f"postgresql://tester@127.0.0.1:{self._proxy.port}/{name}"

    def goes(self):
        if self._how == "silent":
            self._proxy.silence()
        else:
            self._proxy.refusing = True
            self._proxy.cut()

    def returns(self):
        self._proxy.refusing = False
        self._proxy.speak()

    def close(self):
        self.returns()
        self._proxy.close()


def _unprivileged():
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("There is no user to run PostgreSQL as: root may not.")


class Proxy:
    """Stands before the server on a port of its own, and cuts connections when told to."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = set()
        self._lock = threading.Lock()
        self._closed = False
        self._heard = threading.Event()
        self._heard.set()
        self.refusing = False
        self.refused = threading.Event()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    def cut(self):
        """Reset whatever is open, in the midst of whatever it says."""
        with self._lock:
            open_ones, self._open = self._open, set()
            self.cuts += len(open_ones)
        for one in open_ones:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def silence(self):
        """Let nothing through any more, either way, and keep whatever is open."""
        self._heard.clear()

    def speak(self):
        """Let all through that was held back."""
        self._heard.set()

    def close(self):
        self._closed = True
        self._heard.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self):
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):  # who called may be gone
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.refusing:
                client.close()
                self.refused.set()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._target))
            except OSError:
                client.close()
                server.close()
                continue
            with self._lock:
                late = self.refusing  # since it was accepted; `cut` has seen all before
                if not late:
                    self._open |= {client, server}
            if late:
                client.close()
                server.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                self._heard.wait()
                other.sendall(data)
        for each in (one, other):
            with self._lock:
                self._open.discard(each)
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
