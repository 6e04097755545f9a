"""Shards made by ray: one task a shard, on as many machines as the cluster has or can get.

    here:       jobs -> tasks -> notes, in whatever order they come
    on a node:  videos -> decode, in a process of its own -> encode -> array_record

What a shard holds was fixed before, so neither the number of nodes nor the order in which they
finish nor an attempt that died shows in its bytes. Ray tries a task again when its process or its
machine is gone. A decoder's crash is no such death: it happens in a process below the task's, and
the video is bad, as it is without ray. An unfinished file carries the name of its attempt, because
a node that ray has given up may still be writing; and only this side writes notes, by which a
shard counts as finished.
"""

import functools
import importlib.metadata
import pathlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tpdiff_jax.checks import first_line_of
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.preparation.decode_pool import DecodePool, decoding
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.ray_cluster import LOCAL_RAY, connected_ray
from tpdiff_jax.preparation.shard_plan import ShardJob
from tpdiff_jax.preparation.shard_writer import store_clips

RETRIES = 5  # of a shard whose process or machine is gone; then something is wrong with it
SECONDS_TO_APPEAR = 60.0  # a network file system may remember that a file was not there
_LEAST_AHEAD, _AHEAD_PER_CPU = 64, 4  # tasks that wait are what makes a cluster grow

Folders = Mapping[Bucket, pathlib.Path]
Notes = list[dict[str, Any]]


class RayEngine(NamedTuple):
    """Makes shards on a ray cluster.

    Attributes:
        address: of the cluster, as ray writes it; "" takes RAY_ADDRESS, or else starts a ray in
            this process with `prepare.num_workers` CPUs.
        make_encoder: opens what encodes clips, on every node; a function that can be imported.
    """

    address: str
    make_encoder: Callable[[PrepareSpec], ClipEncoder]

    def shards(
        self,
        spec: PrepareSpec,
        folders: Folders,
        jobs: Sequence[ShardJob],
        made_of: Mapping[str, Any],
    ) -> Iterator[tuple[ShardJob, Notes]]:
        """Yield every shard with its notes, still to be written, as soon as it is made.

        Args:
            spec: the config group `prepare`.
            folders: where clips of each shape go, on a file system that all nodes share.
            jobs: shards to make.
            made_of: identity of the preparation, which every node must be able to keep.

        Raises:
            ValueError: when ray is missing or cannot be reached, a node is not fit for the work, a
                shard was given up, or the encoder breaks its promise.
        """
        _remove_unfinished(folders)
        try:
            with connected_ray(self.address, spec.num_workers) as ray:
                yield from _made(ray, self.make_encoder, spec, folders, jobs, made_of)
        finally:
            _remove_unfinished(folders)


def make_engine(
    spec: PrepareSpec,
    name: str,
    address: str,
    make_encoder: Callable[[PrepareSpec], ClipEncoder],
) -> RayEngine | None:
    """Return what --engine and --engine_address ask for; None makes shards here.

    Args:
        spec: the config group `prepare`.
        name: "local" or "ray".
        address: of the cluster; "" leaves it to ray.
        make_encoder: as in `RayEngine`.

    Raises:
        ValueError: when they do not fit together or with the split of hosts.
    """
    if name == LOCAL_RAY:
        if address:
            raise ValueError(f"--engine_address={address} needs --engine=ray")
        return None
    if spec.host_count > 1:
        raise ValueError(
            f"prepare.host_count is {spec.host_count}; allowed: 1 with --engine=ray, which spreads "
            "the shards by itself"
        )
    return RayEngine(address, make_encoder)


def make_on_node(
    spec: PrepareSpec,
    folders: Folders,
    job: ShardJob,
    made_of: Mapping[str, Any],
    make_encoder: Callable[[PrepareSpec], ClipEncoder],
) -> tuple[Notes, str]:
    """Make one shard in this process.

    Args:
        spec: the config group `prepare`.
        folders: where clips of each shape go.
        job: the shard.
        made_of: identity of the preparation.
        make_encoder: opens what encodes clips; kept for the process's next shard.

    Returns:
        The note of every bucket, not yet written, and this machine's name.

    Raises:
        ValueError: when other versions or weights than `made_of` says would make it.
    """
    node = socket.gethostname()
    encoder = _open_encoder(make_encoder, spec)
    here = {name: importlib.metadata.version(name) for name in made_of["versions"]}
    for what, found in (("versions", here), ("encoder", encoder.facts)):
        if found != made_of[what]:
            raise ValueError(f"node {node} has other {what}: {found}, not {made_of[what]}")
    outcomes = _open_pool(spec).outcomes(job.clips)
    attempt = f".{uuid.uuid4().hex}"
    notes = store_clips(folders, job, outcomes, encoder, spec.captions_per_video, attempt)
    return notes, node


def needed_of_node(
    encoder_facts: Mapping[str, Any], cluster: Mapping[str, float]
) -> dict[str, Any]:
    """Return what a task asks a node for, as ray names it.

    Args:
        encoder_facts: of `ClipEncoder`.
        cluster: resource -> amount, of all nodes.
    """
    needed = {"num_cpus": 1}
    if encoder_facts != PIXELS.facts and cluster.get("GPU", 0) >= 1:
        needed["num_gpus"] = 1
    return needed


class _GivenUpError(ValueError):
    """The processes that made a shard died, again and again."""


@functools.lru_cache(maxsize=1)
def _open_encoder(make: Callable[[PrepareSpec], ClipEncoder], spec: PrepareSpec) -> ClipEncoder:
    return make(spec)


@functools.lru_cache(maxsize=1)
def _open_pool(spec: PrepareSpec) -> DecodePool:
    """One decoding process, which lives as long as this one."""
    return DecodePool(
        pathlib.Path(spec.source).resolve(), spec.clip_format, 1, decoding(spec.also_allowed)
    )


def _made(
    ray: Any,
    make_encoder: Callable[[PrepareSpec], ClipEncoder],
    spec: PrepareSpec,
    folders: Folders,
    jobs: Sequence[ShardJob],
    made_of: Mapping[str, Any],
) -> Iterator[tuple[ShardJob, Notes]]:
    needed = needed_of_node(made_of["encoder"], ray.cluster_resources())
    task = ray.remote(make_on_node)
    common = [ray.put(value) for value in (spec, folders, made_of, make_encoder)]
    spec_ref, folders_ref, made_of_ref, make_encoder_ref = common
    rest = iter(jobs)
    flying: dict[Any, ShardJob] = {}
    given_up: _GivenUpError | None = None
    while True:
        ahead = max(_LEAST_AHEAD, _AHEAD_PER_CPU * int(ray.cluster_resources().get("CPU", 0)))
        while len(flying) < ahead and (job := next(rest, None)) is not None:
            # Named for the dashboard.
            named = task.options(name=job.name, max_retries=RETRIES, **needed)
            ref = named.remote(spec_ref, folders_ref, job, made_of_ref, make_encoder_ref)
            flying[ref] = job
        if not flying:
            break
        (done, *_), _ = ray.wait(list(flying))
        job = flying.pop(done)
        try:
            notes, node = _result(ray, done, job)
        except _GivenUpError as error:
            given_up, rest = given_up or error, iter(())  # what is on its way is kept
            continue
        _check_shared(spec, folders, notes, node)
        yield job, notes
    if given_up is not None:
        raise given_up


def _result(ray: Any, ref: Any, job: ShardJob) -> tuple[Notes, str]:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # what the task raised, without ray's own pages
    except ray.exceptions.RayError as error:
        raise _GivenUpError(
            f"{job.name} was given up: its process or machine was gone {RETRIES + 1} times (memory "
            f"of the node? the same command goes on with it): {first_line_of(error)}"
        ) from error


def _check_shared(spec: PrepareSpec, folders: Folders, notes: Notes, node: str) -> None:
    """Refuse what a node has made that does not see the folders that this process sees."""
    for folder, note in zip(folders.values(), notes, strict=True):
        path, deadline = folder / note["name"], time.monotonic() + SECONDS_TO_APPEAR
        while not path.is_file() or path.stat().st_size != note["num_bytes"]:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"--workdir={folder} is not shared: {note['name']}, made by node {node}, is "
                    "not in it"
                )
            time.sleep(min(1.0, SECONDS_TO_APPEAR))
        for clip in note["skipped"]:
            source = pathlib.Path(spec.source) / clip["path"]
            if clip["reason"] == "missing_file" and source.is_file():
                raise ValueError(
                    f"prepare.source={spec.source!r} is not shared: node {node} does not see "
                    f"{clip['path']!r}"
                )


def _remove_unfinished(folders: Folders) -> None:
    for folder in folders.values():
        for path in folder.glob(".*.array_record.*.tmp"):
            path.unlink(missing_ok=True)
