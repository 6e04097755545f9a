"""A stand-in for the trainer on a worker: follows $FAKE_CLOUD/script, one word for each start.

a number     end with that code
preempt      the slice is taken away: its state becomes SUSPENDED, and this process dies
crash        die without a word, as a machine that reboots does
hang         run until SIGTERM, then end with code 3
"""

import json
import os
import pathlib
import signal
import sys
import time

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])


def read_starts(worker: str) -> list[str]:
    """Return one line for each start of a worker so far."""
    path = CLOUD / f"starts_{worker}.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Note how it was called, then do the word of this start."""
    worker = os.environ["WORKER"]
    count = len(read_starts(worker))
    word = (CLOUD / "script").read_text().split()[count]
    if word == "hang":  # before the start shows: whoever has seen it may stop it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print(f"start {count} of {worker}: {word}", flush=True)
    with (CLOUD / f"starts_{worker}.jsonl").open("a") as file:
        file.write(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd()}) + "\n")
    if word in ("preempt", "crash") and worker == "worker1":
        time.sleep(5)  # its peer is the one that goes; this one waits for it in vain
        sys.exit(134)
    if worker == "worker0" and word != "hang":  # nothing ends before all have logged their start
        for i in range(1, int(os.environ.get("NUM_WORKERS", "1"))):
            while len(read_starts(f"worker{i}")) <= count:
                time.sleep(0.05)
    if word == "preempt":
        (CLOUD / "queue").write_text("SUSPENDED")
        word = "crash"
    if word == "crash":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if word == "hang":
        time.sleep(60)
    sys.exit(int(word))


if __name__ == "__main__":
    main()
