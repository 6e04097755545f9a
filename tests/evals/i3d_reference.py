"""I3D in PyTorch with the names of the published port, for parity: written from the paper's table.

Padding is TensorFlow's SAME, worked out for every call; pools pad with zeros, which after ReLU is
the same as leaving the border out.
"""

import math

import torch
from torch import nn

STEM = (("Conv3d_1a_7x7", 7, 2, 64), ("Conv3d_2b_1x1", 1, 1, 64), ("Conv3d_2c_3x3", 3, 1, 192))
MIXED = {
    "Mixed_3b": [64, 96, 128, 16, 32, 32],
    "Mixed_3c": [128, 128, 192, 32, 96, 64],
    "Mixed_4b": [192, 96, 208, 16, 48, 64],
    "Mixed_4c": [160, 112, 224, 24, 64, 64],
    "Mixed_4d": [128, 128, 256, 24, 64, 64],
    "Mixed_4e": [112, 144, 288, 32, 64, 64],
    "Mixed_4f": [256, 160, 320, 32, 128, 128],
    "Mixed_5b": [256, 160, 320, 32, 128, 128],
    "Mixed_5c": [384, 192, 384, 48, 128, 128],
}


def pad_same(x, window, strides):
    pads = []
    for size, k, s in reversed(list(zip(x.shape[2:], window, strides, strict=True))):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return nn.functional.pad(x, pads)


def pool(x, window, strides):
    return nn.functional.max_pool3d(pad_same(x, window, strides), window, strides)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, size, stride=1):
        super().__init__()
        self.size, self.stride = (size,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, size, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv3d(pad_same(x, self.size, self.stride))))


class Mixed(nn.Module):
    def __init__(self, inputs, channels):
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3b = channels
        self.b0 = Unit(inputs, c0, 1)
        self.b1a, self.b1b = Unit(inputs, c1a, 1), Unit(c1a, c1b, 3)
        self.b2a, self.b2b = Unit(inputs, c2a, 1), Unit(c2a, c2b, 3)
        self.b3b = Unit(inputs, c3b, 1)

    def forward(self, x):
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        parts = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(parts, 1)


class Logits(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, 400, 1)


class ReferenceI3D(nn.Module):
    """I3D with a share of the published channels; the forward returns the outputs of all units."""

    POOLS = {
        "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
        "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
        "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
        "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
    }

    def __init__(self, width=1.0):
        super().__init__()
        inputs = 3
        for name, size, stride, channels in STEM:
            outputs = max(1, round(channels * width))
            self.add_module(name, Unit(inputs, outputs, size, stride))
            inputs = outputs
        for name, channels in MIXED.items():
            scaled = [max(1, round(c * width)) for c in channels]
            self.add_module(name, Mixed(inputs, scaled))
            inputs = scaled[0] + scaled[2] + scaled[4] + scaled[5]
        self.logits = Logits(inputs)

    def units(self, x):
        for name in (*(row[0] for row in STEM), *MIXED):
            if name in self.POOLS:
                x = pool(x, *self.POOLS[name])
            x = getattr(self, name)(x)
            yield name, x

    def forward(self, x):
        *_, (_, features) = self.units(x)
        pooled = nn.functional.avg_pool3d(features, (2, 7, 7), 1)
        return self.logits.conv3d(pooled).mean((2, 3, 4))


def random_reference(width, seed=0):
    """Weights that keep activations near 1, with every statistic away from its default."""
    torch.manual_seed(seed)
    model = ReferenceI3D(width).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("conv3d.weight"):
            nn.init.normal_(tensor, std=math.sqrt(2.0 / tensor[0].numel()))
        elif name.endswith("bn.weight"):
            nn.init.normal_(tensor, 1.0, 0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.is_floating_point():
            nn.init.normal_(tensor, std=0.1)
    return model
