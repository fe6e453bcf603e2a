"""A store that is closed while other threads read ends none of them, nor the process."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys, threading, time
sys.setswitchinterval(1e-5)
from pathlib import Path
from smoothapi.answer import Answer, Label
from smoothapi.errors import UsageError
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.rows import StoredAnswer, answer_key

folder = Path(sys.argv[1])
keys = [answer_key({"n": n}) for n in range(40)]
store = AnswerStore(folder)
store.put(*(StoredAnswer({"n": n}, Answer((Label("bus", 0.5),))) for n in range(40)))
store.close()
ended = 0
for _ in range(25):
    store, begun = AnswerStore(folder), threading.Barrier(5)

    def read():
        global ended
        begun.wait()
        try:
            while True:
                for key in keys:
                    assert store.get(key).labels[0].name == "bus"
        except UsageError as error:
            assert "closed" in str(error), error
            ended += 1

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(0.02)
    store.close()
    for thread in threads:
        thread.join()
print(ended)
"""


def test_every_reader_ends_in_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", _SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "100"), done.stderr[-2000:]
