"""diffusers' UNet3DConditionModel on small random weights, as the reference for parity tests.

Weights are drawn as for AnimateDiff: scales of norms near 1, everything else of unit gain, nothing
left at the zero that training starts from.
"""

import functools

import jax
import numpy as np
import torch
from diffusers import UNet3DConditionModel

from tests.models.animatediff import animatediff_reference
from tpdiff_jax.models import ModelScope, ModelScopeConfig
from tpdiff_jax.models.modelscope.weights import modelscope_rows
from tpdiff_jax.weights.key_table import import_params, places

HEIGHT, WIDTH = animatediff_reference.HEIGHT, animatediff_reference.WIDTH
CONFIG = ModelScopeConfig(
    channels=3, level_channels=(8, 16), level_depth=1, head_dim=4, num_groups=4, text_dim=10,
    num_text_tokens=5, implicit_rate=True,
)  # fmt: skip
make_inputs = functools.partial(animatediff_reference.make_inputs, config=CONFIG)


def make_reference(config=CONFIG, seed=0):
    """Return the reference network of `config` with random weights, without its dropout."""
    last = config.num_levels - 1
    model = UNet3DConditionModel(
        sample_size=HEIGHT, in_channels=config.channels, out_channels=config.channels,
        block_out_channels=config.level_channels, layers_per_block=config.level_depth,
        down_block_types=("CrossAttnDownBlock3D",) * last + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * last,
        norm_num_groups=config.num_groups, cross_attention_dim=config.text_dim,
        attention_head_dim=config.head_dim,
    )  # fmt: skip
    animatediff_reference.randomise(model, seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.GroupNorm):  # some are called conv1.0
                module.weight.copy_(1.0 + 0.1 * torch.tanh(module.weight))
    return model.eval()


def to_params(tensors, config=CONFIG):
    """Tensors of the reference, or their gradients, as a tree of our parameters."""
    shapes = jax.eval_shape(ModelScope(config).init, jax.random.key(0))
    found = places(modelscope_rows(config), shapes)
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def run_reference(model, x, t, cond):
    """Run the reference; its output carries a gradient graph of the weights.

    Returns:
        [b, f, h, w, c], a torch tensor.
    """
    sample = torch.from_numpy(np.moveaxis(x, -1, 1).copy())  # [b, c, f, h, w]
    text = torch.from_numpy(cond["text"])
    output = model(sample, torch.from_numpy(t), encoder_hidden_states=text).sample
    return output.movedim(1, -1)
