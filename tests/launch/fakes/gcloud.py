"""A stand-in for gcloud: two TPU workers as two home folders, and a queue that can preempt.

Flags are those of the Google Cloud SDK reference; any other is refused, as gcloud would. What
`ssh` is asked to run really runs, in bash, once per worker and in its home folder. All state lies
in $FAKE_CLOUD: `queue` (states still to come, one a line; none: no such resource), `calls.jsonl`
and `worker0`, `worker1`.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
WORKERS = ("worker0", "worker1")


def main() -> int:
    """Record the call, then do what it asks for."""
    with (CLOUD / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    options = parse()
    action = f"{options.group} {options.verb}"
    if action == "queued-resources create":
        if not options.spot and (CLOUD / "spot_only").exists():
            return 1
        (CLOUD / "queue").write_text("WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n")
        return 0
    if action == "queued-resources delete":
        forget_machines()
        (CLOUD / "queue").unlink()
        return 0
    if action == "queued-resources describe":
        return describe_queue()
    if not is_active():
        print("ERROR: the TPU is not in state READY", file=sys.stderr)
        return 1
    if action == "tpu-vm describe":
        print(json.dumps({"state": "READY", "networkEndpoints": [{} for _ in WORKERS]}))
        return 0
    return copy(options) if options.verb == "scp" else ssh(options)


def parse() -> argparse.Namespace:
    """Parse as strictly as gcloud does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("compute", choices=["compute"])
    parser.add_argument("tpus", choices=["tpus"])
    groups = parser.add_subparsers(dest="group", required=True)
    flags = {
        ("queued-resources", "create"): ["node-id", "accelerator-type", "runtime-version"],
        ("queued-resources", "delete"): [],
        ("queued-resources", "describe"): ["format"],
        ("tpu-vm", "describe"): ["format"],
        ("tpu-vm", "scp"): ["worker"],
        ("tpu-vm", "ssh"): ["worker", "command"],
    }
    switches = {"create": ["spot"], "delete": ["force", "quiet"], "scp": ["quiet"]}
    for group in ("queued-resources", "tpu-vm"):
        verbs = groups.add_parser(group).add_subparsers(dest="verb", required=True)
        for verb in [verb for owner, verb in flags if owner == group]:
            one = verbs.add_parser(verb, allow_abbrev=False)
            one.add_argument("names", nargs=2 if verb == "scp" else 1)
            for flag in [*flags[group, verb], "zone"]:
                one.add_argument(f"--{flag}", required=True)
            one.add_argument("--project")
            for switch in switches.get(verb, ["quiet"]):
                one.add_argument(f"--{switch}", action="store_true")
    return parser.parse_args()


def states() -> list[str]:
    """Return the states still to come."""
    path = CLOUD / "queue"
    return path.read_text().split() if path.exists() else []


def is_active() -> bool:
    """Whether there are machines."""
    return states() == ["ACTIVE"]


def describe_queue() -> int:
    """Show the next state; the last one stays."""
    queue = states()
    if not queue:
        print("ERROR: (gcloud) NOT_FOUND: Resource was not found", file=sys.stderr)
        return 1
    if len(queue) > 1:
        (CLOUD / "queue").write_text("\n".join(queue[1:]))
    if queue[0] == "SUSPENDED":
        forget_machines()
    print(json.dumps({"name": "some/name", "state": {"state": queue[0]}}))
    return 0


def forget_machines() -> None:
    """The disks of the workers go with them."""
    for worker in WORKERS:
        shutil.rmtree(CLOUD / worker, ignore_errors=True)


def selected(options: argparse.Namespace) -> list[pathlib.Path]:
    """Return the home folders that --worker names."""
    names = WORKERS if options.worker == "all" else [f"worker{options.worker}"]
    homes = [CLOUD / name for name in names]
    for home in homes:
        home.mkdir(exist_ok=True)
    return homes


def copy(options: argparse.Namespace) -> int:
    """Copy a file to the workers."""
    source, target = options.names
    for home in selected(options):
        shutil.copy(source, home / target.partition(":")[2])
    return 0


def ssh(options: argparse.Namespace) -> int:
    """Run the command on the workers; one code other than 0 is the code of the whole."""
    code = 0
    for home in selected(options):
        names = {"WORKER": home.name, "NUM_WORKERS": str(len(WORKERS))}
        environment = {**os.environ, "HOME": str(home), **names}
        command = ["bash", "-c", options.command]
        code = subprocess.run(command, cwd=home, env=environment, check=False).returncode or code
    return code


if __name__ == "__main__":
    sys.exit(main())
