"""Networks of the configs on whole TPU slices, by the real compiler: what fits, and what bounds it.

What fits and is fast enough when compiled in haste is so when compiled well; what is refused is
compiled well. Only the full-rate training step is compiled, which needs the most of everything;
what the sampler and the other stages take stands in docs/results/plan_dit_2b.md.
"""

import importlib.util
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import animatediff, dit_2b, flow, miniflux_vid, modelscope
from tests.tiny import set_field
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.planning.program_cost import DoesNotFit, ProgramCost
from tpdiff_jax.planning.roofline import Roofline, roofline
from tpdiff_jax.planning.topology import Target, open_target
from tpdiff_jax.training.step_cost import step_cost, update_cost

pytestmark = [
    pytest.mark.usefixtures("compiled_anew"),
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu, the compiler, is not installed"
    ),
]
LATENTS = (48, 80, 16)  # a frame of 384 x 640 behind an autoencoder that divides sides by 8


def full_rate_step(
    config: ConfigDict, topology: str, batch_size: int, frame_shape: Any = None, **mesh: int
) -> tuple[Target, ProgramCost, Roofline]:
    """Compile the last stage's training step; its batch is also the sampler's and evaluation's."""
    for group in ("train", "sample", "eval"):
        set_field(config, f"{group}.batch_size", batch_size)
    for axis, size in mesh.items():
        set_field(config, f"mesh.{axis}", size)
    target = open_target(topology)
    experiment = build_experiment(config, target.devices, frame_shape)
    last = experiment.pyramid.num_stages - 1
    cost = step_cost(experiment.programs[last], update_cost(experiment))
    bound = roofline(cost, experiment.programs[last].train_flops, target)
    assert bound is not None
    return target, cost, bound


def recomputed() -> Any:
    """The two billion parameters, with blocks that are computed again."""
    config = dit_2b.get_config()
    set_field(config, "model.remat", "full")
    return config


def sent(cost: ProgramCost) -> dict[str, float]:
    """Bytes that each chip sends, by kind of message."""
    assert cost.collectives is not None
    return {collective.kind: collective.sent_bytes for collective in cost.collectives}


@pytest.mark.usefixtures("compiled_in_haste")
def test_two_billion_parameters_fit_v5p_and_may_reach_half_of_its_peak() -> None:
    """16 chips share the parameters, four such groups the batch; a clip has 15,360 tokens."""
    target, cost, bound = full_rate_step(recomputed(), "v5p:4x4x4", 64, LATENTS)
    assert target.memory_bytes is not None
    assert cost.memory.peak < 0.2 * target.memory_bytes
    assert bound.mfu_bound >= 0.5 and bound.bound_by == "compute"
    # All weights of the blocks are gathered at least once, in bfloat16, and not by adding up.
    weights = 2 * 2.0e9 * 15 / 16
    assert sent(cost)["all-gather"] > weights > sent(cost)["all-reduce"]
    # Even when no message overlaps any work, the step is little longer.
    assert bound.interconnect < 0.05 * bound.compute


def test_two_billion_parameters_whole_on_every_chip_are_refused_on_v6e() -> None:
    """Parameters, average and two moments in float32 are 33 GB; a chip has 32 GiB."""
    with pytest.raises(DoesNotFit) as refusal:
        full_rate_step(recomputed(), "v6e:4x4", 16, LATENTS, data=16, fsdp=1)
    assert refusal.value.needed is not None and refusal.value.needed > 32 * 2**30


@pytest.mark.usefixtures("compiled_in_haste")
@pytest.mark.parametrize(("topology", "num_chips"), [("v6e:4x4", 16), ("v5p:4x4x4", 64)])
def test_the_default_network_fits(topology: str, num_chips: int) -> None:
    """Eight clips a chip: its 1.8 million parameters are nothing, so its activations are it all."""
    config = flow.get_config()
    set_field(config, "optim.name", "adamw")  # quicker to compile than Muon
    set_field(config, "model.scan_layers", True)  # and one layer quicker than six
    target, cost, bound = full_rate_step(config, topology, 8 * num_chips)
    assert target.memory_bytes is not None and target.num_chips == num_chips
    assert cost.memory.peak < 0.1 * target.memory_bytes
    assert 0 < bound.mfu_bound < 1 and cost.unknown_loops == []
    assert "all-reduce" in sent(cost), "every chip has all parameters; gradients are added up"


@pytest.mark.parametrize("module", [animatediff, flow, miniflux_vid, modelscope])
def test_a_kernel_that_this_machine_lacks_may_be_planned_for(module: Any) -> None:
    config = module.get_config()
    set_field(config, "model.attention_kernel", "splash")
    set_field(config, "mesh.fsdp", 1)
    target = open_target("v5e:2x4")
    experiment = build_experiment(config, target.devices, (16, 32, 32, 4))
    assert experiment.network.config.attention_kernel == "splash"
    with pytest.raises(ValueError, match="'splash' needs a tpu, the devices are cpu"):
        build_experiment(config, frame_shape=(16, 32, 32, 4))
