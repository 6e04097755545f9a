"""A whole training step in both libraries: gradient, clipping, optimizer, moving average.

Muon is PyTorch's own (`torch.optim.Muon`, as many Newton-Schulz steps, the same scale) on matrices
of the blocks, with AdamW for the rest; only the time is compared.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import optax
import torch

from bench.pytorch_twin import Inputs
from tpdiff_jax.optim.optimizer import OptimizerSpec, make_optimizer, make_schedule
from tpdiff_jax.types import Params

DECAY = 0.999  # of the moving average
NUM_STEPS = 1_000_000  # of the schedule: none of its end is seen
TINY_RATE = 1e-6  # parameters stay where the networks were compared


def our_update(
    optimizer: str, gradient: Callable[[Params, Inputs], Params], params: Params, inputs: Inputs
) -> Callable[[], Any]:
    """Return our training step on its own copy of the parameters, given away at every call.

    As in training, the gradient is one program and the update another.

    Args:
        optimizer: "adamw" or "muon".
        gradient: of the loss by the parameters, compiled.
        params: where to start.
        inputs: the batch of every step.
    """
    spec = OptimizerSpec(name=optimizer, learning_rate=TINY_RATE)
    rule = make_optimizer(spec, make_schedule(spec, NUM_STEPS))

    def update(state: Any, grads: Params) -> Any:
        params, average, opt_state = state
        changes, opt_state = rule.update(grads, opt_state, params)
        params = optax.apply_updates(params, changes)
        return params, optax.incremental_update(params, average, 1.0 - DECAY), opt_state

    compiled = jax.jit(update, donate_argnums=0)
    held: list[Any] = []

    def call() -> Any:
        if not held:  # only a run that times it pays for its memory
            fresh = jax.tree.map(lambda leaf: leaf.copy(), (params, params))
            held.append((*fresh, rule.init(params)))
        held[0] = compiled(held[0], gradient(held[0][0], inputs))
        return held[0]

    return call


def their_update(optimizer: str, model: torch.nn.Module) -> Callable[[], None]:
    """Return what follows the backward pass in PyTorch.

    Args:
        optimizer: "adamw" or "muon".
        model: whose gradients are there.
    """
    named = dict(model.named_parameters())
    chosen = {
        name for name, value in named.items()
        if optimizer == "muon" and value.ndim == 2 and "blocks." in name
    }  # fmt: skip
    rest = [value for name, value in named.items() if name not in chosen]
    rules: list[Any] = [torch.optim.AdamW(rest, lr=TINY_RATE, betas=(0.9, 0.99))]
    if chosen:
        matrices = [named[name] for name in chosen]
        rules.append(torch.optim.Muon(matrices, lr=TINY_RATE, adjust_lr_fn="match_rms_adamw"))
    values: list[torch.Tensor] = list(named.values())
    average = [copy.deepcopy(value.detach()) for value in values]

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        for rule in rules:
            rule.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, values, 1.0 - DECAY)

    return update
