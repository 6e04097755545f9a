"""A stand-in for kubectl and the JobSet controller: each `get` runs all pods and judges them.

Flags are kubectl's; any other is refused. What happens to exit codes follows the policies of the
created manifest, as "Pod failure policy" (Kubernetes) and FailurePolicy (JobSet) describe. State
lies in $FAKE_CLOUD: `calls.jsonl`, `manifest.yaml`, `jobset.json`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import yaml

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])


def main() -> None:
    """Record the call, then do what it asks for."""
    with (CLOUD / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    options = parse()
    if options.verb == "create":
        (CLOUD / "manifest.yaml").write_text(sys.stdin.read())
        (CLOUD / "jobset.json").write_text(json.dumps({"restarts": 0}))
    elif options.verb == "get":
        manifest = yaml.safe_load((CLOUD / "manifest.yaml").read_text())
        if options.name != manifest["metadata"]["name"]:
            sys.exit(f'Error from server (NotFound): jobsets "{options.name}" not found')
        status = json.loads((CLOUD / "jobset.json").read_text())
        if "conditions" not in status:
            status = reconcile(manifest["spec"], status)
            (CLOUD / "jobset.json").write_text(json.dumps(status))
        print(json.dumps({"kind": "JobSet", "status": status}))


def parse() -> argparse.Namespace:
    """Parse as strictly as kubectl does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--context")
    parser.add_argument("--namespace")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("create", allow_abbrev=False).add_argument("--filename", choices=["-"])
    for verb in ("get", "delete"):
        one = verbs.add_parser(verb, allow_abbrev=False)
        one.add_argument("kind", choices=["jobset"])
        one.add_argument("name")
        if verb == "get":
            one.add_argument("--output", choices=["json"])
    logs = verbs.add_parser("logs", allow_abbrev=False)
    for flag in ("selector", "tail", "container"):
        logs.add_argument(f"--{flag}")
    logs.add_argument("--follow", action="store_true")
    return parser.parse_args()


def reconcile(spec: dict, status: dict) -> dict:
    """Run the pods, then complete, restart or fail."""
    (replicated,) = spec["replicatedJobs"]
    job = replicated["template"]["spec"]
    reason = run_job(job)
    if reason is None:
        return {**status, "conditions": [{"type": "Completed", "status": "True"}]}
    action = "RestartJobSet"
    for rule in spec["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"]:
            action = rule["action"]
            break
    if action == "RestartJobSet" and status["restarts"] < spec["failurePolicy"]["maxRestarts"]:
        return {"restarts": status["restarts"] + 1}
    failed = {"type": "Failed", "status": "True", "message": f"jobset failed: {reason}"}
    return {**status, "conditions": [{"type": "Suspended", "status": "False"}, failed]}


def run_job(job: dict) -> str | None:
    """Run all pods side by side; return why the Job failed, None when it did not."""
    (container,) = job["template"]["spec"]["containers"]
    pods = [
        start_pod(container["command"], i, job["completions"]) for i in range(job["completions"])
    ]
    codes = [pod.wait() for pod in pods]
    (rule,) = job["podFailurePolicy"]["rules"]
    found = rule["onExitCodes"]
    if found["operator"] == "In" and container["name"] == found["containerName"]:
        if set(codes) & set(found["values"]) and rule["action"] == "FailJob":
            return "PodFailurePolicy"
    failures = sum(code != 0 for code in codes)
    return "BackoffLimitExceeded" if failures > job["backoffLimit"] else None


def start_pod(command: list[str], index: int, num_pods: int) -> subprocess.Popen:
    """Start the container's command with the stand-in for the trainer."""
    if command[0] != "python":
        raise SystemExit(f"the image has no {command[0]}")
    arguments = [part.replace("$$", "$") for part in command[1:]]
    trainer = [os.environ["FAKE_PYTHON"], "-S", os.environ["FAKE_TRAINER"], *arguments]
    environment = {**os.environ, "WORKER": f"worker{index}", "NUM_WORKERS": str(num_pods)}
    return subprocess.Popen(trainer, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
