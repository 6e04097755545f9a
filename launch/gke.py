r"""Train on a TPU slice of Google Kubernetes Engine, as a JobSet.

    docker build --file launch/Dockerfile --tag IMAGE . && docker push IMAGE
    python -m launch.gke submit --name=tp-base --image=IMAGE --tpu=v6e --topology=4x4 --spot \
      --claim=runs --config=configs/flow.py --workdir=/runs/tp-base --config.train.batch_size=64
    python -m launch.gke wait --name=tp-base

Actions:
  submit   create the JobSet. Its pods are recreated after a preemption, a lost node and every exit
           code but those below (at most --max-restarts times), and resume from the newest
           checkpoint. Bad input (2), too many bad steps (4), a checkpoint that could not be saved
           (6) and too many bad clips (7) would come again: they fail it at once.
  wait     until it has completed (0) or failed (1), saying each restart.
  logs     follow the log of the first pod.
  delete   delete the JobSet and its pods; the workdir stays.

The cluster needs the JobSet controller, a node pool with the slice, and a PersistentVolumeClaim
that many pods can write to (--claim; Filestore, or a bucket with a hierarchical namespace through
the Cloud Storage FUSE driver). kubectl must be logged in; --context and --namespace choose where.
Spot machines get less than --grace-seconds: what they do not save is trained again.

Exit codes: 0 done; 1 failed; 2 bad input; 130 stopped waiting.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import yaml

from launch.job import job_parser, parse_job
from launch.jobset import ACCELERATORS, CONTAINER, Pods, make_jobset
from launch.names import check_job_name, check_label, check_place, check_polls
from launch.runner import EXIT_FAILED, PATIENCE, CommandFailed, Runner, run_program

PROGRAM = "launch.gke"


def main(argv: Sequence[str] | None = None) -> int:
    """Do one action; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    return run_program(PROGRAM, lambda: _act(options, rest))


def _act(options: argparse.Namespace, rest: Sequence[str]) -> int:
    check_job_name(options.name)
    check_polls(options.poll_seconds)
    check_place("--context", options.context)
    check_label("--namespace", options.namespace, "a namespace")
    runner = Runner(is_dry_run=options.dry_run)
    kubectl = ["kubectl"]
    kubectl += [f"--context={options.context}"] if options.context else []
    kubectl += [f"--namespace={options.namespace}"] if options.namespace else []
    if options.action == "submit":
        pods = _read_pods(options)
        manifest = make_jobset(parse_job(options, rest, pods.num_devices), pods)
        text = yaml.safe_dump(manifest, sort_keys=False)
        runner.run([*kubectl, "create", "--filename=-"], stdin=text)
        return 0
    if rest:
        raise ValueError(f"{' '.join(rest)}: only `submit` takes config overrides")
    if options.action == "wait":
        return wait(kubectl, options.name, runner, options.poll_seconds)
    if options.action == "logs":
        name = f"jobset.sigs.k8s.io/jobset-name={options.name}"
        selector = f"--selector={name},batch.kubernetes.io/job-completion-index=0"
        flags = ["--follow", "--tail=-1", f"--container={CONTAINER}"]
        runner.run([*kubectl, "logs", selector, *flags])
    else:
        runner.run([*kubectl, "delete", "jobset", options.name])
    return 0


def wait(kubectl: Sequence[str], name: str, runner: Runner, poll_seconds: float) -> int:
    """Wait for the end of a JobSet; return 0 when it has completed, 1 when it has failed.

    Raises:
        CommandFailed: when kubectl cannot tell at first, or for a while, or there is no JobSet.
    """
    command = [*kubectl, "get", "jobset", name, "--output=json"]
    done = '{"status": {"conditions": [{"type": "Completed", "status": "True"}]}}'
    runner.note(f"every {poll_seconds:g} s, until it is Completed or Failed:")
    shown = failures = 0
    was_there = False
    while True:
        try:
            answer = runner.read(command, in_dry_run=done, is_quiet=True)
        except CommandFailed as failure:
            failures += 1
            if not was_there or failures >= PATIENCE or "NotFound" in failure.stderr:
                raise
            runner.note(f"no answer ({failures} of {PATIENCE}): {failure}")
            runner.sleep(poll_seconds)
            continue
        failures, was_there = 0, True
        status = json.loads(answer).get("status", {})
        if status.get("restarts", 0) != shown:
            shown = status["restarts"]
            runner.note(f"restarted {shown} times")
        for condition in status.get("conditions", []):
            if condition["status"] == "True" and condition["type"] in ("Completed", "Failed"):
                runner.note(f"{condition['type']} {condition.get('message', '')}".strip())
                return 0 if condition["type"] == "Completed" else EXIT_FAILED
        runner.sleep(poll_seconds)


def _read_pods(options: argparse.Namespace) -> Pods:
    for name in ("image", "claim"):
        if getattr(options, name) is None:
            raise ValueError(f"--{name} is required by `submit`")
    return Pods(
        image=options.image,
        tpu=options.tpu,
        topology=options.topology,
        claim=options.claim,
        mount=options.mount,
        chips_per_pod=options.chips_per_pod,
        is_spot=options.spot,
        max_restarts=options.max_restarts,
        grace_seconds=options.grace_seconds,
    )


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(PROGRAM, __doc__)
    parser.add_argument("action", choices=("submit", "wait", "logs", "delete"))
    parser.add_argument("--context", help="kubectl's context; default: its own")
    parser.add_argument("--namespace", help="default: kubectl's own")
    parser.add_argument("--image", help="container image, see launch/Dockerfile")
    parser.add_argument("--tpu", default="v5e", help=", ".join(ACCELERATORS))
    parser.add_argument("--topology", default="2x4", help="chips along each dimension")
    parser.add_argument(
        "--chips-per-pod", type=int, default=0, help="default: 4, or all of a smaller slice"
    )
    parser.add_argument("--claim", help="PersistentVolumeClaim that holds the workdir")
    parser.add_argument("--mount", default="/runs", help="where pods see it")
    parser.add_argument("--spot", action="store_true", help="cheaper, may be preempted")
    parser.add_argument("--max-restarts", type=int, default=50)
    parser.add_argument("--grace-seconds", type=int, default=120, help="for a last checkpoint")
    parser.add_argument("--poll-seconds", type=float, default=30.0, help="between questions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
