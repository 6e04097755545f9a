"""The optimizer: AdamW or Muon, warm-up and decay, global-norm clipping."""

import dataclasses
from typing import Any

import jax
import optax

from tpdiff_jax.checks import check_above, check_at_least, check_choice, check_range
from tpdiff_jax.optim.adaptation import LOW_A, LOW_B, MATRIX
from tpdiff_jax.optim.muon import muon
from tpdiff_jax.types import Params

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Fields of the config group `optim`.

    Attributes:
        name: `adamw`, or `muon` for matrices of the blocks with AdamW for the rest.
        learning_rate: peak value.
        schedule: `constant`, or `cosine` to zero at its end; both after linear warm-up.
        schedule_steps: steps until that end; 0 is the run's last step.
        warmup_steps: clamped to a tenth of the schedule.
        weight_decay: decoupled, on matrices only, low-rank ones among them; `muon` decays those
            that it orthogonalises.
        b1: decay of the first moment.
        b2: decay of the second moment.
        clip_norm: largest global gradient norm.
        ema_decay: largest decay of the parameters' moving average.
        adam_ratio: Adam's learning rate over `learning_rate`, where Muon leaves parameters to it.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.99
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    adam_ratio: float = 1.0
    schedule_steps: int = 0

    def __post_init__(self) -> None:
        check_choice("optim.name", self.name, OPTIMIZERS)
        check_choice("optim.schedule", self.schedule, SCHEDULES)
        for field in ("learning_rate", "clip_norm", "adam_ratio"):
            check_above(f"optim.{field}", getattr(self, field), 0)
        for field in ("warmup_steps", "weight_decay", "schedule_steps"):
            check_at_least(f"optim.{field}", getattr(self, field), 0)
        for field in ("b1", "b2", "ema_decay"):
            check_range(f"optim.{field}", getattr(self, field), 0, 1, "[)")


def make_schedule(spec: OptimizerSpec, num_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of applied updates.

    Args:
        spec: optimizer fields.
        num_steps: length of the run, at least 1; that of the schedule unless it has its own.
    """
    num_steps = spec.schedule_steps or num_steps
    warmup = min(spec.warmup_steps, num_steps // 10)
    rise = optax.linear_schedule(spec.learning_rate / (warmup + 1), spec.learning_rate, warmup)
    if spec.schedule == "constant":
        rest = optax.constant_schedule(spec.learning_rate)
    else:
        rest = optax.cosine_decay_schedule(spec.learning_rate, max(num_steps - warmup, 1))
    return optax.join_schedules([rise, rest], [warmup])


def make_optimizer(
    spec: OptimizerSpec, schedule: optax.Schedule, platform: str | None = None
) -> optax.GradientTransformation:
    """Return the gradient transformation: clip, precondition, decay, scale.

    Args:
        spec: optimizer fields.
        schedule: learning rate by applied updates.
        platform: of the devices that compute it, cpu, gpu or tpu; None: those that are here.
    """
    if spec.name == "muon":
        # Stacked blocks carry matrices as [depth, d_in, d_out]; each is orthogonalised by itself.
        transform = muon(
            schedule,
            _is_stack_of_matrices,
            weight_decay=spec.weight_decay,
            is_exact=(platform or jax.default_backend()) == "cpu",
            rest=optax.adamw(
                lambda count: spec.adam_ratio * schedule(count),
                b1=spec.b1,
                b2=spec.b2,
                weight_decay=0.0,
                nesterov=True,
            ),
        )
    else:
        transform = optax.adamw(
            schedule, b1=spec.b1, b2=spec.b2, weight_decay=spec.weight_decay, mask=_is_matrix
        )
    return optax.chain(optax.clip_by_global_norm(spec.clip_norm), transform)


def check_has_work(name: str, params: Params) -> None:
    """Refuse Muon where it would leave every parameter to Adam, at Adam's share of the rate.

    Args:
        name: `optim.name`.
        params: what is trained, or its shapes.

    Raises:
        ValueError: naming `optim.name`.
    """
    if name == "muon" and not any(jax.tree.leaves(_is_stack_of_matrices(params))):
        raise ValueError(
            "optim.name='muon' is for matrices of stacked blocks, [depth, d_in, d_out], and there "
            "are none among what is trained; allowed: 'adamw'"
        )


def _has_name(path: tuple[Any, ...], names: tuple[str, ...]) -> bool:
    return str(getattr(path[-1], "key", path[-1])) in names


def _is_matrix(params: Params) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _has_name(path, (MATRIX, LOW_A, LOW_B)) and leaf.ndim >= 2, params
    )


def _is_stack_of_matrices(params: Params) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _has_name(path, (MATRIX,)) and leaf.ndim == 3, params
    )
