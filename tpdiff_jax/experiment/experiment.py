"""A run's config as typed objects: what every mode is given.

An experiment is a shared part (network, optimizer, batches, devices) and the shapes that its clips
have. One network with one set of parameters serves all of them; what a shape has of its own is its
data set and its pyramid. The first shape is what is sampled and evaluated unless another is asked
for.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from tpdiff_jax import method
from tpdiff_jax.data import BucketedClips, ClipFacts, Dataset
from tpdiff_jax.data.step_schedule import program_of_step, steps_of_round
from tpdiff_jax.devices.mesh import num_shares
from tpdiff_jax.experiment.clip_flops import clip_flops
from tpdiff_jax.experiment.shapes import ClipsOfShape
from tpdiff_jax.experiment.specs import GenerateSpec, LogSpec, TrainSpec
from tpdiff_jax.measures.clip_measures import MeasureSpec
from tpdiff_jax.models import Network
from tpdiff_jax.models.published import PublishedWeights
from tpdiff_jax.run_folder.checkpoint_manifest import Identity
from tpdiff_jax.run_folder.run_config import deciding_fields
from tpdiff_jax.train_state import TrainTask
from tpdiff_jax.types import Strides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A config as typed objects.

    Attributes:
        config: the ConfigDict, kept only to be written beside the run.
        shapes: clips of each shape, with their pyramids.
        network: the pair of pure functions `init`, `apply` and their costs; it knows no shape.
        task: what a training step needs, with the pyramid of the first shape.
        train: length, batch and periods of training.
        log: where metrics go.
        sampler: solver, steps and guidance.
        sample: what to show.
        evaluation: how many videos to measure.
        measure: what to measure prepared clips with.
        mesh: the devices.
        num_data_threads: threads that render clips.
        weights: published weights to start from; None draws them.
        adapter: file or folder of an adapter that low-rank changes start from; None: from nothing.
        told_strides: what sampling tells the network in place of a stage's strides; None: those.
        other_shapes: shapes left out by `of_bucket`, whose upsampling the windows were made for
            too.
    """

    config: ConfigDict
    shapes: tuple[ClipsOfShape, ...]
    network: Network
    task: TrainTask
    train: TrainSpec
    log: LogSpec
    sampler: method.SamplerSpec
    sample: GenerateSpec
    evaluation: GenerateSpec
    measure: MeasureSpec
    mesh: Mesh
    num_data_threads: int
    weights: PublishedWeights | None = None
    adapter: pathlib.Path | None = None
    told_strides: Strides | None = None
    other_shapes: tuple[ClipsOfShape, ...] = ()

    @property
    def clip_facts(self) -> ClipFacts:
        """Shapes and numbers of the clips of the first shape, at hand or not."""
        return self.shapes[0].facts

    @property
    def dataset(self) -> Dataset:
        """Clips of the first shape.

        Raises:
            ValueError: when the experiment was built for a shape alone.
        """
        return self.shapes[0].dataset

    @property
    def pyramid(self) -> method.Pyramid:
        """The stages of the first shape; all shapes share their windows."""
        return self.shapes[0].pyramid

    @property
    def is_bucketed(self) -> bool:
        """Whether clips are sorted into named shapes."""
        return bool(self.shapes[0].bucket)

    @property
    def clips(self) -> BucketedClips:
        """The clips of all shapes."""
        return BucketedClips(buckets={clips.bucket: clips.dataset for clips in self.shapes})

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Clips of a training step, by stage: equal, or in inverse proportion to their places."""
        if self.train.batch_per_stage == "clips":
            return (self.train.batch_size,) * self.pyramid.num_stages
        return tuple(
            self.train.batch_size * math.prod(stage.strides) for stage in self.pyramid.stages
        )

    @property
    def batch_unit(self) -> int:
        """Clips that `train.batch_size` is a multiple of, as its checks demand.

        A batch is cut into parts, and each part into groups of pairs and over devices.
        """
        of_part = math.lcm(num_shares(self.mesh, "batch"), self.task.alignment.batch_unit)
        return self.train.grad_accum_steps * of_part

    @functools.cached_property
    def bucket_steps(self) -> tuple[int, ...]:
        """Steps that each shape gets of a round, in proportion to its training clips."""
        if len(self.shapes) == 1:
            return (1,)
        return steps_of_round([clips.dataset.num_clips("train") for clips in self.shapes])

    @functools.cached_property
    def programs(self) -> tuple["Program", ...]:
        """Every shape's training step of every stage: what training compiles."""
        stages = range(self.pyramid.num_stages)
        return tuple(
            Program(experiment=self, clips=clips, stage=stage)
            for clips in self.shapes
            for stage in stages
        )

    def program_of_step(self, step: int) -> int:
        """Return the index in `programs` of what step `step` (counted from 0) runs."""
        spec = self.train
        return program_of_step(spec.seed, step, spec.stage_probs, self.bucket_steps)

    def place_of_program(self, program: int) -> dict[str, int]:
        """Return the stage of a program and, where there are several, the bucket, as logged."""
        bucket, stage = divmod(program, self.pyramid.num_stages)
        return {"stage": stage, "bucket": bucket} if len(self.shapes) > 1 else {"stage": stage}

    def mean_over_steps(self, values: Sequence[float]) -> float:
        """Return the mean of a figure that every one of `programs` has, over steps."""
        shares = [n / sum(self.bucket_steps) for n in self.bucket_steps]
        weights = [share * prob for share in shares for prob in self.train.stage_probs]
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    def of_bucket(self, name: str) -> "Experiment":
        """Return the experiment for the clips of one shape alone.

        Raises:
            ValueError: when there is no bucket of that name.
        """
        shapes = {clips.bucket: clips for clips in self.shapes}
        if name not in shapes:
            names = ", ".join(bucket for bucket in shapes if bucket) or "none: clips have one shape"
            raise ValueError(f"--bucket={name} must be a bucket of the clips; there are {names}")
        shown = shapes.pop(name)
        task = self.task._replace(pyramid=shown.pyramid)
        others = (*self.other_shapes, *shapes.values())
        return dataclasses.replace(self, shapes=(shown,), task=task, other_shapes=others)

    @property
    def identity(self) -> Identity:
        """What a checkpoint of this run belongs to."""
        return Identity(config=deciding_fields(self.config), dataset=self.clips.fingerprint())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """The training step of one shape of clips and one stage.

    Attributes:
        experiment: what is trained.
        clips: of the shape.
        stage: index of the stage.
    """

    experiment: Experiment
    clips: ClipsOfShape
    stage: int

    @property
    def name(self) -> str:
        """As in stage 0, or 16x96x160 stage 0."""
        return f"{self.clips.bucket} stage {self.stage}".strip()

    @property
    def task(self) -> TrainTask:
        """What the step needs: the experiment's, with the shape's own pyramid."""
        return self.experiment.task._replace(pyramid=self.clips.pyramid)

    @property
    def batch_size(self) -> int:
        """Clips of a step."""
        return self.experiment.batch_sizes[self.stage]

    @property
    def stage_shape(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip as the network sees it."""
        return self.clips.pyramid.stages[self.stage].shape

    @functools.cached_property
    def train_flops(self) -> float:
        """Model FLOPs of a step: the network, forward and backward.

        Alignment, optimizer and average are not in it; `cost.step_flops` counts them.
        """
        experiment, facts = self.experiment, self.clips.facts
        adaptation = experiment.task.adaptation
        shape = (*self.stage_shape, facts.frame_shape[-1])
        of_clip = clip_flops(experiment.network, adaptation, facts.cond_shapes, shape)
        return of_clip * self.batch_size
