"""A run's config as typed objects: what every mode is given.

Training on clips of several shapes has an experiment for each (`Experiment.buckets`), the first of
which is what is sampled and evaluated unless another is asked for.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from tpdiff_jax import method
from tpdiff_jax.clip_flops import clip_flops
from tpdiff_jax.clip_measures import MeasureSpec
from tpdiff_jax.data import BucketedClips, ClipShape, Dataset, clips_at_hand
from tpdiff_jax.infra.checkpoint_manifest import Identity
from tpdiff_jax.models import Network
from tpdiff_jax.pretrained import PublishedWeights
from tpdiff_jax.run_config import deciding_fields
from tpdiff_jax.run_specs import GenerateSpec, TrainSpec
from tpdiff_jax.stage_schedule import program_of_step, steps_of_round
from tpdiff_jax.train_step import TrainTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A config as typed objects, for clips of one shape.

    Where clips have several shapes, all buckets share everything but `bucket`, `clip_facts`,
    `network` and `task`; parameters do not depend on the shape.

    Attributes:
        config: the ConfigDict, kept only to be written beside the run.
        clip_facts: the data set, or the shape alone of clips that are not at hand.
        network: the pair of pure functions `init`, `apply` and their costs.
        task: what a training step needs.
        train: length, batch and periods of training.
        sampler: solver, steps and guidance.
        sample: what to show.
        evaluation: how many videos to measure.
        measure: what to measure prepared clips with.
        mesh: the devices.
        num_data_threads: threads that render clips.
        weights: published weights to start from; None draws them.
        bucket: name of the shape; "" where there is only one.
        other_buckets: the same config for the other shapes.
    """

    config: ConfigDict
    clip_facts: Dataset | ClipShape
    network: Network
    task: TrainTask
    train: TrainSpec
    sampler: method.SamplerSpec
    sample: GenerateSpec
    evaluation: GenerateSpec
    measure: MeasureSpec
    mesh: Mesh
    num_data_threads: int
    weights: PublishedWeights | None = None
    bucket: str = ""
    other_buckets: tuple["Experiment", ...] = ()

    @property
    def dataset(self) -> Dataset:
        """Clips and their conditions.

        Raises:
            ValueError: when the experiment was built for a shape alone.
        """
        return clips_at_hand(self.clip_facts)

    @property
    def pyramid(self) -> method.Pyramid:
        """The stages."""
        return self.task.pyramid

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Clips of a training step, by stage: equal, or in inverse proportion to their frames."""
        if self.train.batch_per_stage == "clips":
            return (self.train.batch_size,) * self.pyramid.num_stages
        return tuple(self.train.batch_size * stage.frame_stride for stage in self.pyramid.stages)

    @property
    def buckets(self) -> tuple["Experiment", ...]:
        """This experiment and those of the other shapes."""
        return (self, *self.other_buckets)

    @property
    def clips(self) -> BucketedClips:
        """The clips of all buckets."""
        return BucketedClips(buckets={part.bucket: part.dataset for part in self.buckets})

    @functools.cached_property
    def bucket_steps(self) -> tuple[int, ...]:
        """Steps that each bucket gets of a round, in proportion to its training clips."""
        if not self.other_buckets:
            return (1,)
        return steps_of_round([part.dataset.num_clips("train") for part in self.buckets])

    @property
    def programs(self) -> list["Program"]:
        """Every bucket's training step of every stage: what training compiles."""
        stages = range(self.pyramid.num_stages)
        return [Program(part, stage) for part in self.buckets for stage in stages]

    def program_of_step(self, step: int) -> int:
        """Return the index in `programs` of what step `step` (counted from 0) runs."""
        spec = self.train
        return program_of_step(spec.seed, step, spec.stage_probs, self.bucket_steps)

    def place_of_program(self, program: int) -> dict[str, int]:
        """Return the stage of a program and, where there are several, the bucket, as logged."""
        bucket, stage = divmod(program, self.pyramid.num_stages)
        return {"stage": stage, "bucket": bucket} if self.other_buckets else {"stage": stage}

    def mean_over_steps(self, values: Sequence[float]) -> float:
        """Return the mean of a figure that every one of `programs` has, over steps."""
        shares = [n / sum(self.bucket_steps) for n in self.bucket_steps]
        weights = [share * prob for share in shares for prob in self.train.stage_probs]
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    def of_bucket(self, name: str) -> "Experiment":
        """Return the experiment for the clips of one shape.

        Raises:
            ValueError: when there is no bucket of that name.
        """
        parts = {part.bucket: part for part in self.buckets}
        if name not in parts:
            names = ", ".join(part for part in parts if part) or "none: clips have one shape"
            raise ValueError(f"--bucket={name} must be a bucket of the clips; there are {names}")
        return dataclasses.replace(parts[name], other_buckets=())

    @property
    def identity(self) -> Identity:
        """What a checkpoint of this run belongs to."""
        return Identity(config=deciding_fields(self.config), dataset=self.clips.fingerprint())

    def train_flops(self, stage_index: int) -> float:
        """Model FLOPs of one training step of a stage: the network, forward and backward.

        Alignment, optimizer and average are not in it; `cost.step_flops` counts them.
        """
        return self._clip_flops[stage_index] * self.batch_sizes[stage_index]

    @functools.cached_property
    def _clip_flops(self) -> tuple[float, ...]:
        """Training FLOPs of one clip, by stage."""
        network, clips, adaptation = self.network, self.clip_facts, self.task.adaptation
        return tuple(
            clip_flops(
                network, adaptation, clips.cond_shapes, (stage.num_frames, *clips.frame_shape)
            )
            for stage in self.pyramid.stages
        )


class Program(NamedTuple):
    """The training step of one shape of clips and one stage.

    Attributes:
        experiment: of the shape.
        stage: index of the stage.
    """

    experiment: Experiment
    stage: int

    @property
    def name(self) -> str:
        """As in stage 0, or 16x96x160 stage 0."""
        return f"{self.experiment.bucket} stage {self.stage}".strip()

    @property
    def batch_size(self) -> int:
        """Clips of a step."""
        return self.experiment.batch_sizes[self.stage]

    @property
    def num_frames(self) -> int:
        """Frames of a clip as the network sees it."""
        return self.experiment.pyramid.stages[self.stage].num_frames

    @property
    def train_flops(self) -> float:
        """Model FLOPs of a step."""
        return self.experiment.train_flops(self.stage)
