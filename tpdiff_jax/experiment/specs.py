"""The config groups `train`, `log`, `sample` and `eval` as objects that check themselves."""

import dataclasses
from importlib.util import find_spec

from tpdiff_jax.checks import check_at_least, check_choice, check_range
from tpdiff_jax.run_log.sinks import DEFAULT_SINKS, REQUIRED_SINK, SINK_LIBRARIES, SINKS

BATCHES_PER_STAGE = ("clips", "tokens")
MAX_STEPS = 2**31 - 1  # steps are counted in int32
MAX_SEED = 2**32 - 1  # jax keeps 32 bits of a seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Fields of the config group `train`."""

    num_steps: int
    batch_size: int
    seed: int
    batch_per_stage: str
    grad_accum_steps: int
    stage_probs: tuple[float, ...]
    cond_dropout: float
    log_every_steps: int
    checkpoint_every_steps: int
    sample_every_steps: int
    eval_every_steps: int
    keep_checkpoints: int

    def __post_init__(self) -> None:
        for name in (
            *("batch_size", "grad_accum_steps", "log_every_steps"),
            *("checkpoint_every_steps", "keep_checkpoints"),
        ):
            check_at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("sample_every_steps", "eval_every_steps"):
            check_at_least(f"train.{name}", getattr(self, name), 0)
        check_range("train.num_steps", self.num_steps, 1, MAX_STEPS)
        check_range("train.seed", self.seed, 0, MAX_SEED)
        check_choice("train.batch_per_stage", self.batch_per_stage, BATCHES_PER_STAGE)
        check_range("train.cond_dropout", self.cond_dropout, 0, 1, "[)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSpec:
    """Fields of the config group `log`; they may change when a run is resumed.

    Attributes:
        sinks: names in `run_log.sinks.SINKS` of where metrics go.
    """

    sinks: tuple[str, ...] = DEFAULT_SINKS

    def __post_init__(self) -> None:
        if not isinstance(self.sinks, tuple):
            raise ValueError(f"log.sinks={self.sinks!r} must be a tuple of names")
        for name in self.sinks:
            check_choice("log.sinks", name, tuple(SINKS))
        if len(set(self.sinks)) < len(self.sinks):
            raise ValueError(f"log.sinks={self.sinks!r} must name each sink once")
        if REQUIRED_SINK not in self.sinks:
            raise ValueError(
                f"log.sinks={self.sinks!r} must hold {REQUIRED_SINK!r}: reports and "
                "--mode=replay read metrics.jsonl"
            )
        for name in self.sinks:
            if (library := SINK_LIBRARIES.get(name)) and find_spec(library) is None:
                raise ValueError(f"log.sinks names {name!r}, which needs: pip install {library}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateSpec:
    """How many videos to generate, how many at once, from which seed (`sample`, `eval`).

    `sample.video_weights` is the folder of the autoencoder that decodes latents, `sample.prompts` a
    file of what a run shows on its way, `sample.text_weights` the folder of its text encoder.
    """

    group: str
    num_videos: int
    batch_size: int
    seed: int
    video_weights: str = ""
    prompts: str = ""
    text_weights: str = ""

    def __post_init__(self) -> None:
        check_at_least(f"{self.group}.num_videos", self.num_videos, 1)
        check_at_least(f"{self.group}.batch_size", self.batch_size, 1)
        check_range(f"{self.group}.seed", self.seed, 0, MAX_SEED)
