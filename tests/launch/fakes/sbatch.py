"""A stand-in for sbatch that runs the batch script at once, again for each `scontrol requeue`.

Flags are those of the sbatch manual page; any other is refused. State lies in $FAKE_CLOUD:
`sbatch.jsonl`, `restarts.txt` (one line a run), `requeued` (made by scontrol).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
JOB_ID = "4711"


def main() -> None:
    """Record, run, repeat while requeued."""
    options = parse()
    with (CLOUD / "sbatch.jsonl").open("a") as calls:
        calls.write(json.dumps(vars(options)) + "\n")
    log = pathlib.Path(options.output.replace("%%", "\0").replace("%j", JOB_ID).replace("\0", "%"))
    environment = {**os.environ, "SLURM_JOB_ID": JOB_ID, "WORKER": "worker0"}
    if options.cpus_per_task is not None:  # set where it was asked for, and not otherwise
        environment["SLURM_CPUS_PER_TASK"] = options.cpus_per_task
    while True:
        with log.open("a") as out:
            command = ["bash", options.script, *options.arguments]
            code = subprocess.run(
                command, cwd=options.chdir, env=environment, stdout=out, stderr=out, check=False
            ).returncode
        with (CLOUD / "codes.txt").open("a") as codes:
            codes.write(f"{code}\n")
        requeued = CLOUD / "requeued"
        if not requeued.exists():
            break
        requeued.unlink()
        restarts = int(environment.get("SLURM_RESTART_COUNT", "0")) + 1
        environment["SLURM_RESTART_COUNT"] = str(restarts)
    print(JOB_ID if options.clusters is None else f"{JOB_ID};{options.clusters}")


def parse() -> argparse.Namespace:
    """Parse as strictly as sbatch does: its own flags end where the script begins."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in (
        *("job-name", "chdir", "output", "nodes", "ntasks-per-node", "gpus-per-node", "time"),
        *("cpus-per-task", "open-mode", "signal", "partition", "account", "qos", "mem"),
        "clusters",
    ):
        parser.add_argument(f"--{flag}")
    for switch in ("parsable", "requeue"):
        parser.add_argument(f"--{switch}", action="store_true")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
