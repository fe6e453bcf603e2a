"""Kill a run in its middle; the next one goes on where it was, and pays for the rest only."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smoothapi import Progress, Smoother
from smoothapi_adapters.mock import MockAdapter

PHOTO = Path(__file__).parent / "photos" / "monarch.jpg"


def certify(home: str, *, aloud: bool) -> None:
    service = MockAdapter({"monarch": 0.99, None: 0.01})

    def say(now: Progress) -> None:
        print(now.votes, flush=True)
        if now.votes == 15:
            time.sleep(60)  # in which it is killed

    with Smoother(service, radius=0.25, size=64, denoiser="none", concurrency=2, home=home) as s:
        certificate = s.certify(PHOTO, on_progress=say if aloud else None)
    print(certificate)
    print(f"{certificate.queries} queries were sent now; {certificate.cached} answers were there.")


if __name__ == "__main__" and len(sys.argv) > 1:
    certify(sys.argv[1], aloud=True)
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:  # noqa: S603
            while run.stdout is not None and run.stdout.readline().strip() != "15":
                pass
            run.kill()  # SIGKILL: it can do nothing about it any more
        print("Killed after 15 votes.")
        certify(folder, aloud=False)
