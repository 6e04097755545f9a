"""Networks with a reference of diffusers, and strong random adapters of theirs and of ours."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.models.animatediff import animatediff_reference
from tests.models.flux import flux_reference
from tests.models.full_size import at
from tests.models.modelscope import modelscope_reference
from tests.models.wan import wan_reference
from tpdiff_jax.models import AnimateDiff, Flux, ModelScope, Wan
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapters import AdaptedNetwork
from tpdiff_jax.models.flux.weights import abstract_flux_params, flux_rows
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.weights.key_table import import_params, places

FRAMES = 3
POSITIONS = np.arange(FRAMES, dtype=np.float32)
Run = Callable[[torch.nn.Module], np.ndarray]


class AdapterCase(NamedTuple):
    """A network, its reference and inputs of both.

    Attributes:
        name: in `MODELS`.
        network: ours.
        make: makes the reference, with the same weights every time.
        to_params: (tensors of the reference) -> our parameters.
        inputs: x, t and condition.
        run: runs the reference.
    """

    name: str
    network: Any
    make: Callable[[], torch.nn.Module]
    to_params: Callable[[Any], Any]
    inputs: tuple[Any, Any, Any]
    run: Run

    @property
    def params(self) -> Any:
        return self.to_params(self.make().state_dict())

    def adapted(self, params: Any) -> AdaptedNetwork:
        return AdaptedNetwork(adapter_names(self.name), self.network.config, params)

    def output(self, params: Any) -> np.ndarray:
        return np.asarray(_apply(self.network, params, *self.inputs))

    def reference_output(self, model: torch.nn.Module) -> np.ndarray:
        with torch.no_grad():
            return self.run(model.eval())


def _apply(network: Any, params: Any, x: Any, t: Any, cond: Any) -> Any:
    run = _compiled(network)
    return run(params, jnp.asarray(x), jnp.asarray(t), cond)


_PROGRAMS: dict[Any, Any] = {}


def _compiled(network: Any) -> Any:
    if network not in _PROGRAMS:
        _PROGRAMS[network] = jax.jit(
            lambda params, x, t, cond: network.apply(
                params, x, t, at(POSITIONS, x), (1, 1, 1), cond
            )
        )
    return _PROGRAMS[network]


def _flux(patch: str) -> AdapterCase:
    config = flux_reference.CONFIG
    layout = "pyramid_flow" if patch == "p q c" else "diffusers"

    def to_params(tensors: Any) -> Any:
        shapes = abstract_flux_params(config)
        found = places(flux_rows(config, layout), shapes)
        return import_params(found, lambda name: tensors[name].numpy(), shapes)

    x, t, cond = flux_reference.make_inputs(FRAMES)
    return AdapterCase(
        "flux",
        Flux(config),
        flux_reference.make_reference,
        to_params,
        (x, t, cond),
        lambda model: flux_reference.run_reference(
            model, x, t, POSITIONS, cond, patch=patch
        ).numpy(),
    )


def _animatediff() -> AdapterCase:
    config = dataclasses.replace(animatediff_reference.CONFIG, motion_norm="all_frames")
    inputs = animatediff_reference.make_inputs(FRAMES)
    return AdapterCase(
        "animatediff",
        AnimateDiff(config),
        animatediff_reference.make_reference,
        animatediff_reference.to_params,
        inputs,
        lambda model: animatediff_reference.run_reference(model, *inputs).numpy(),
    )


def _modelscope() -> AdapterCase:
    inputs = modelscope_reference.make_inputs(FRAMES)
    return AdapterCase(
        "modelscope",
        ModelScope(modelscope_reference.CONFIG),
        modelscope_reference.make_reference,
        modelscope_reference.to_params,
        inputs,
        lambda model: modelscope_reference.run_reference(model, *inputs).numpy(),
    )


def _wan() -> AdapterCase:
    x, t, cond = wan_reference.make_inputs(FRAMES)
    return AdapterCase(
        "wan",
        Wan(wan_reference.CONFIG),
        wan_reference.make_reference,
        wan_reference.to_params,
        (x, t, cond),
        lambda model: wan_reference.run_reference(
            model, torch.from_numpy(x), t, POSITIONS, cond
        ).numpy(),
    )


WAN, MODELSCOPE = _wan(), _modelscope()
FLUX, FLUX_NATIVE, ANIMATEDIFF = _flux("c p q"), _flux("p q c"), _animatediff()


def relative(result: Any, expected: Any) -> float:
    """Of two arrays, relative to the second."""
    return float(np.linalg.norm(np.asarray(result) - expected) / np.linalg.norm(expected))


def strong_low_rank(params: Any, adaptation: Adaptation, seed: int = 0) -> Any:
    """Low-rank changes as large as what they change: A of unit gain, B of rank and scale."""
    rng = np.random.default_rng(seed)
    low = adaptation.split(params, jax.random.key(0))[0]

    def draw(path: Any, leaf: Any) -> Any:
        is_a = path[-1].key == "lora_a"
        gain = np.prod(leaf.shape[-2:-1]) ** -0.5 if is_a else 0.2 / adaptation.scale
        return (gain * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, low)


def draw_adapter(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Draw A and B of an adapter of peft's anew, each module's its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                gain = float(np.prod(parameter.shape[1:])) ** -0.5
                parameter.copy_(gain * torch.randn(parameter.shape, generator=generator))
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model
