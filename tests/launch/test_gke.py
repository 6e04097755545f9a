"""JobSets: fields that the API has, exit codes that mean what they say, text that stays text."""

import json
import re
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from launch import gke
from launch.job import FINAL_CODES, Job
from launch.jobset import Pods, make_jobset
from launch.runner import CommandFailed
from tests.launch.stand_ins import Cloud, commands_of
from tests.tiny import REPO

NASTY = '/runs/it\'s: {a} "b" #c & $(touch x)\\n %y - z'
BASE = {"image": "registry/image:1", "tpu": "v6e", "topology": "4x4", "claim": "runs"}
SUBMIT = ["submit", "--name=tp", "--image=registry/image:1", "--claim=runs", f"--workdir={NASTY}"]

# Fields of jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1 that a manifest of ours may have, with
# the type of each leaf. `*` stands for any key, a list for any number of items.
INTEGER, TEXT = int, str
TOLERATION = {"key": TEXT, "operator": TEXT, "value": TEXT, "effect": TEXT}
CONTAINER = {
    "name": TEXT,
    "image": TEXT,
    "command": [TEXT],
    "ports": [{"containerPort": INTEGER}],
    "resources": {"limits": {"google.com/tpu": INTEGER}},
    "volumeMounts": [{"name": TEXT, "mountPath": TEXT}],
}
POD_SPEC = {
    "restartPolicy": TEXT,
    "terminationGracePeriodSeconds": INTEGER,
    "nodeSelector": {"*": TEXT},
    "tolerations": [TOLERATION],
    "containers": [CONTAINER],
    "volumes": [{"name": TEXT, "persistentVolumeClaim": {"claimName": TEXT}}],
}
EXIT_CODES = {"containerName": TEXT, "operator": TEXT, "values": [INTEGER]}
JOB_SPEC = {
    "parallelism": INTEGER,
    "completions": INTEGER,
    "completionMode": TEXT,
    "backoffLimit": INTEGER,
    "podFailurePolicy": {"rules": [{"action": TEXT, "onExitCodes": EXIT_CODES}]},
    "template": {"spec": POD_SPEC},
}
RULE = {"name": TEXT, "action": TEXT, "onJobFailureReasons": [TEXT]}
JOBSET = {
    "apiVersion": TEXT,
    "kind": TEXT,
    "metadata": {"name": TEXT, "annotations": {"*": TEXT}},
    "spec": {
        "failurePolicy": {"maxRestarts": INTEGER, "rules": [RULE]},
        "replicatedJobs": [
            {"name": TEXT, "replicas": INTEGER, "template": {"spec": JOB_SPEC}},
        ],
    },
}
OPTIONAL = {"tolerations"}


def violations(value: Any, schema: Any, path: str = "") -> list[str]:
    """Return what a manifest has that the schema has not, lacks, or has of another type."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{path} is no mapping"]
        schema = {key: schema["*"] for key in value} if "*" in schema else schema
        missing = [f"{path}.{key} is missing" for key in schema.keys() - value.keys() - OPTIONAL]
        unknown = [f"{path}.{key} is unknown" for key in value.keys() - schema.keys()]
        shared = sorted(value.keys() & schema.keys())
        inner = [v for key in shared for v in violations(value[key], schema[key], f"{path}.{key}")]
        return missing + unknown + inner
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{path} is no list with items"]
        return [
            v for i, item in enumerate(value) for v in violations(item, schema[0], f"{path}{i}")
        ]
    return [] if type(value) is schema else [f"{path} is {value!r}"]


def read_strictly(text: str) -> Any:
    """Return the one document of a YAML text.

    Raises:
        ValueError: when a key stands twice, which YAML's own loader lets pass.
    """
    nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise ValueError(f"a key stands twice: {keys}")
            nodes += [child for _, child in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return yaml.safe_load(text)


def printed_manifest(text: str) -> Any:
    """Return the manifest of a dry run."""
    (body,) = re.findall(r"<<'EOF'\n(.*?)\nEOF$", text, re.DOTALL | re.MULTILINE)
    return read_strictly(body)


def jobset(**more: Any) -> dict[str, Any]:
    """Return the manifest of a small job."""
    job = Job(name="tp", config="configs/flow.py", workdir="/runs/tp")
    return make_jobset(job, Pods(**(BASE | more)))


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the pod's spec."""
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("more", [[], ["--spot"], ["--tpu=v5p", "--topology=4x4x4"]])
def test_a_dry_run_prints_a_manifest_that_the_api_takes(cloud: Cloud, more: list[str]) -> None:
    fields = ["--config.train.num_steps=5", "--config.train.batch_size=64"]
    out = cloud.launch("gke", *SUBMIT, "--dry-run", *more, *fields)
    assert out.returncode == 0, out.stderr
    assert cloud.calls() == []
    manifest = printed_manifest(out.stdout)
    assert violations(manifest, JOBSET) == []
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (container,) = pod_of(manifest)["containers"]
    assert container["command"] == [
        *("python", "-m", "tpdiff_jax.main", "--config=configs/flow.py"),
        *(f"--workdir={NASTY.replace('$(', '$$(')}", *fields),
    ]


def test_the_schema_check_sees_what_it_looks_for() -> None:
    manifest = jobset()
    manifest["spec"]["failurePolicy"]["maxRestart"] = 1
    manifest["spec"]["replicatedJobs"][0]["replicas"] = "1"
    del manifest["metadata"]["name"]
    assert violations(manifest, JOBSET) == [
        ".metadata.name is missing",
        ".spec.failurePolicy.maxRestart is unknown",
        ".spec.replicatedJobs0.replicas is '1'",
    ]
    with pytest.raises(ValueError, match="stands twice"):
        read_strictly("a: 1\na: 2\n")


@pytest.mark.parametrize(
    ("tpu", "topology", "chips_per_pod", "pods", "chips"),
    [
        ("v5e", "1x1", 0, 1, 1),
        ("v5e", "2x4", 8, 1, 8),
        ("v6e", "4x4", 0, 4, 4),
        ("v5p", "4x4x4", 0, 16, 4),
        ("tpu7x", "2x2x1", 0, 1, 4),
    ],
)
def test_one_pod_runs_on_each_machine(
    tpu: str, topology: str, chips_per_pod: int, pods: int, chips: int
) -> None:
    manifest = jobset(tpu=tpu, topology=topology, chips_per_pod=chips_per_pod)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == pods
    (container,) = pod_of(manifest)["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] == chips
    assert pod_of(manifest)["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology


def test_spot_machines_are_selected_and_tolerated_only_when_asked_for() -> None:
    spot = pod_of(jobset(is_spot=True))
    assert spot["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (toleration,) = spot["tolerations"]
    assert (toleration["key"], toleration["value"]) == ("cloud.google.com/gke-spot", "true")
    assert "gke-spot" not in str(jobset())


def test_the_workdir_lies_on_the_claim() -> None:
    pod = pod_of(jobset(mount="/runs"))
    (volume,) = pod["volumes"]
    (mounted,) = pod["containers"][0]["volumeMounts"]
    assert (volume["name"], mounted["mountPath"]) == (mounted["name"], "/runs")
    assert volume["persistentVolumeClaim"] == {"claimName": "runs"}
    with pytest.raises(ValueError, match="--workdir=/runs/tp must lie below --mount=/run"):
        jobset(mount="/run")


def train(cloud: Cloud, script: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Submit a job whose trainer follows `script`, and wait for it."""
    cloud.script(script)
    submitted = cloud.launch("gke", *SUBMIT, "--topology=2x4", *more)
    assert submitted.returncode == 0, submitted.stderr
    return cloud.launch("gke", "wait", "--name=tp", "--poll-seconds=0.01")


def starts(cloud: Cloud) -> list[int]:
    """Return how often each of the two pods has started."""
    return [len(cloud.lines(f"starts_worker{i}.jsonl")) for i in range(2)]


@pytest.mark.parametrize(("script", "restarts"), [("0", 0), ("3 0", 1), ("3 134 0", 2)])
def test_pods_start_again_together_until_they_are_done(
    cloud: Cloud, script: str, restarts: int
) -> None:
    out = train(cloud, script)
    assert out.returncode == 0, out.stderr + out.stdout
    assert starts(cloud) == [restarts + 1] * 2
    assert ("restarted 1 times" in out.stdout) == (restarts > 0)
    argvs = [start["argv"] for start in cloud.lines("starts_worker0.jsonl")]
    assert all(argv == argvs[0] for argv in argvs) and f"--workdir={NASTY}" in argvs[0]


@pytest.mark.parametrize("code", FINAL_CODES)
def test_what_would_come_again_is_not_tried_again(cloud: Cloud, code: int) -> None:
    out = train(cloud, f"{code} 0")
    assert out.returncode == 1
    assert starts(cloud) == [1, 1]
    assert "Failed jobset failed: PodFailurePolicy" in out.stdout


def test_restarts_come_to_an_end(cloud: Cloud) -> None:
    assert train(cloud, "3 3 3 0", "--max-restarts=1").returncode == 1
    assert starts(cloud) == [2, 2]


def test_a_dry_run_prints_what_a_real_run_calls(cloud: Cloud) -> None:
    where = ["--context=mine", "--namespace=team"]
    for action in (SUBMIT, ["wait", "--name=tp"], ["logs", "--name=tp"], ["delete", "--name=tp"]):
        dry = cloud.launch("gke", *action, *where, "--dry-run")
        (printed,) = commands_of(dry.stdout)
        before = cloud.calls()
        cloud.script("0")
        real = cloud.launch("gke", *action, *where)
        assert real.returncode == 0, real.stderr
        called = cloud.calls()[len(before)]
        assert [part for part in printed if part != "<<EOF"] == ["kubectl", *called]
        if action is SUBMIT:
            created = (cloud.folder / "manifest.yaml").read_text()
            assert printed_manifest(dry.stdout) == yaml.safe_load(created)


def test_a_lost_job_is_a_failure(cloud: Cloud) -> None:
    train(cloud, "0")
    out = cloud.launch("gke", "wait", "--name=other")
    assert out.returncode == 1
    assert "NotFound" in out.stderr


class Answers:
    """In place of a runner: kubectl answers or fails, word by word."""

    def __init__(self, words: str) -> None:
        self.words = words.split()

    def read(self, command: Sequence[str], **_: Any) -> str:
        word = self.words.pop(0)
        if word in ("fails", "NotFound"):
            raise CommandFailed(command, 1, word)
        condition = {"type": "Completed", "status": str(word == "done")}
        return json.dumps({"status": {"conditions": [condition]}})

    def note(self, text: str) -> None:
        print(text)

    def sleep(self, seconds: float) -> None:
        pass


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("runs fails fails runs " + "fails " * 9 + "done", 0),
        ("runs " + "fails " * 10 + "done", 1),
        ("runs NotFound done", 1),
        ("fails done", 1),
    ],
)
def test_waiting_outlasts_a_bad_minute_and_no_more(words: str, left: int) -> None:
    answers: Any = Answers(words)
    if left:
        with pytest.raises(CommandFailed):
            gke.wait(["kubectl"], "tp", answers, 0.0)
    else:
        assert gke.wait(["kubectl"], "tp", answers, 0.0) == 0
    assert len(answers.words) == left


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*SUBMIT, "--workdir=/tmp/a"], "--workdir=/tmp/a must lie below --mount=/runs"),
        ([*SUBMIT, "--workdir=/runsaway"], "--workdir=/runsaway must lie below"),
        ([*SUBMIT, "--workdir=/runs/../tmp/a"], "must lie below --mount=/runs"),
        ([*SUBMIT, "--workdir=/runs/a/../.."], "must lie below --mount=/runs"),
        ([*SUBMIT, "--mount=/runs/.."], "--mount=/runs/.. must be an absolute path below /"),
        ([*SUBMIT, "--image=--all"], "--image='--all'"),
        (["wait", "--name=tp", "--poll-seconds=nan"], "--poll-seconds is nan; allowed: [0, "),
        (["wait", "--name=tp", "--poll-seconds=-1"], "--poll-seconds is -1.0; allowed: [0, "),
        ([*SUBMIT, "--tpu=v9"], "--tpu is 'v9'; allowed: 'v4', 'v5e"),
        ([*SUBMIT, "--topology=4x4x4"], "--topology=4x4x4 must be like 4x4 for v5e"),
        ([*SUBMIT, "--chips-per-pod=3"], "--chips-per-pod=3 must divide the 8 chips"),
        ([*SUBMIT, "--claim=My Claim"], "--claim=My Claim"),
        ([*SUBMIT, "--mount=runs"], "--mount=runs must be an absolute path"),
        ([*SUBMIT, "--image=a b"], "--image='a b'"),
        ([*SUBMIT, "--max-restarts=-1"], "--max-restarts is -1; allowed: at least 0"),
        (["submit", "--name=tp", "--workdir=/runs/a"], "--image is required"),
        (["wait", "--name=tp", "--config.train.seed=1"], "only `submit`"),
    ],
)
def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert gke.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launch.gke: error: ") and named in line


def test_the_image_holds_what_the_command_needs() -> None:
    lines = (REPO / "launch" / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ")}
    assert copied == {"requirements.txt", "configs", "tpdiff_jax"}
    ignored = (REPO / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored and {f"!{name}" for name in copied} <= set(ignored)
