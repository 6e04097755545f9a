"""A JobSet for one TPU slice on Google Kubernetes Engine, as plain data.

One pod runs on each machine of the slice. Kubernetes acts on the trainer's exit codes: one that
would come again (bad input, a full disk, ...) fails the whole JobSet, any other end but 0 recreates
all pods, which resume from the newest checkpoint; so does a node that is taken away.

Sources: JobSet API, jobset.x-k8s.io/v1alpha2 (JobSetSpec, FailurePolicy); Kubernetes
documentation, "Pod failure policy"; Google Kubernetes Engine documentation, "Deploy TPU workloads
in GKE Standard" and "Plan TPUs in GKE".
"""

import dataclasses
import math
import posixpath
import re
from typing import Any

from launch.job import FINAL_CODES, Job
from launch.names import check_label
from tpdiff_jax.checks import check_at_least, check_choice

# version -> (label of its nodes, dimensions of its topologies)
ACCELERATORS = {
    "v4": ("tpu-v4-podslice", 3),
    "v5e": ("tpu-v5-lite-podslice", 2),
    "v5p": ("tpu-v5p-slice", 3),
    "v6e": ("tpu-v6e-slice", 2),
    "tpu7x": ("tpu7x", 3),
}
CONTAINER = "train"
_IMAGE = re.compile(r"[A-Za-z0-9]\S*")
_MOST_CHIPS = 4  # of a machine in a slice of several; single machines may have 8
_RUNTIME_PORTS = (8471, 8431)  # between the machines of a slice, and metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pods:
    """What the pods are made of.

    Attributes:
        image: container image with this package, its requirements and jax[tpu].
        tpu: version of the TPU, a key of `ACCELERATORS`.
        topology: chips along each dimension, such as 4x4.
        chips_per_pod: chips of one machine; 0 for the usual number.
        claim: PersistentVolumeClaim (ReadWriteMany) that holds the workdir.
        mount: where the pods see it.
        is_spot: whether to run on Spot machines.
        max_restarts: how often the pods may be recreated.
        grace_seconds: between SIGTERM and SIGKILL, for a checkpoint.

    Raises:
        ValueError: for a topology the TPU does not have, or names that Kubernetes does not take.
    """

    image: str
    tpu: str
    topology: str
    claim: str
    mount: str = "/runs"
    chips_per_pod: int = 0
    is_spot: bool = False
    max_restarts: int = 50
    grace_seconds: int = 120

    def __post_init__(self) -> None:
        check_choice("--tpu", self.tpu, ACCELERATORS)
        dimensions = ACCELERATORS[self.tpu][1]
        if not re.fullmatch("x".join([r"[1-9]\d*"] * dimensions), self.topology):
            example = "x".join(["4"] * dimensions)
            raise ValueError(f"--topology={self.topology} must be like {example} for {self.tpu}")
        if self.chips_per_pod < 0 or self.num_chips % self.chips:
            raise ValueError(
                f"--chips-per-pod={self.chips_per_pod} must divide the {self.num_chips} chips of "
                f"--topology={self.topology}"
            )
        check_label("--claim", self.claim, "a PersistentVolumeClaim")
        if not self.mount.startswith("/") or posixpath.normpath(self.mount) in ("/", "//"):
            raise ValueError(f"--mount={self.mount} must be an absolute path below /")
        if not _IMAGE.fullmatch(self.image):
            raise ValueError(f"--image={self.image!r} is not the name of an image")
        check_at_least("--max-restarts", self.max_restarts, 0)
        check_at_least("--grace-seconds", self.grace_seconds, 0)

    @property
    def num_chips(self) -> int:
        """Chips of the slice."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def num_devices(self) -> int:
        """Devices that JAX sees: a chip is one, but for those whose two halves are one each."""
        return self.num_chips * (2 if self.tpu == "tpu7x" else 1)

    @property
    def chips(self) -> int:
        """Chips of one pod."""
        return self.chips_per_pod or min(self.num_chips, _MOST_CHIPS)

    @property
    def num_pods(self) -> int:
        """Machines of the slice."""
        return self.num_chips // self.chips


def make_jobset(job: Job, pods: Pods) -> dict[str, Any]:
    """Return the JobSet that trains `job`.

    Raises:
        ValueError: when the workdir does not lie in the mounted volume.
    """
    # `/runs/../x` begins with `/runs/` and lies on the pod's own disk.
    workdir = posixpath.normpath(job.workdir)
    if not f"{workdir}/".startswith(f"{posixpath.normpath(pods.mount)}/"):
        raise ValueError(
            f"--workdir={job.workdir} must lie below --mount={pods.mount}: what else pods write "
            "goes when they do"
        )
    not_again = {
        "name": "finalExitCode",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "annotations": {
                # All pods on one slice, and nothing else there.
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {"maxRestarts": pods.max_restarts, "rules": [not_again]},
            "replicatedJobs": [
                {"name": "slice", "replicas": 1, "template": {"spec": _job_spec(job, pods)}}
            ],
        },
    }


def _job_spec(job: Job, pods: Pods) -> dict[str, Any]:
    final = {"containerName": CONTAINER, "operator": "In", "values": list(map(int, FINAL_CODES))}
    return {
        "parallelism": pods.num_pods,
        "completions": pods.num_pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # one lost pod ends the step of all; JobSet recreates them together
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}]},
        "template": {"spec": _pod_spec(job, pods)},
    }


def _pod_spec(job: Job, pods: Pods) -> dict[str, Any]:
    spot = {"cloud.google.com/gke-spot": "true"} if pods.is_spot else {}
    tolerations = [
        {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        for key, value in spot.items()
    ]
    container = {
        "name": CONTAINER,
        "image": pods.image,
        # Kubernetes would replace $(NAME) by a variable of the container; $$ stands for $.
        "command": [part.replace("$", "$$") for part in job.command()],
        "ports": [{"containerPort": port} for port in _RUNTIME_PORTS],
        "resources": {"limits": {"google.com/tpu": pods.chips}},
        "volumeMounts": [{"name": "runs", "mountPath": pods.mount}],
    }
    return {
        "restartPolicy": "Never",  # pod failure policies allow no other
        "terminationGracePeriodSeconds": pods.grace_seconds,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[pods.tpu][0],
            "cloud.google.com/gke-tpu-topology": pods.topology,
            **spot,
        },
        **({"tolerations": tolerations} if tolerations else {}),
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": pods.claim}}],
    }
