"""PyTorch's attention on the same arrays, for `bench.attention`."""

from collections.abc import Callable

import numpy as np
import torch

from tpdiff_jax.types import Array

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pytorch_attention(
    q: Array, k: Array, v: Array
) -> tuple[Callable[[], np.ndarray], Callable[[], list[np.ndarray]]]:
    """Return `scaled_dot_product_attention` of these arrays and its gradient, ready to call.

    Args:
        q: queries, [b, l, n, e].
        k: keys, [b, l, n, e].
        v: values, [b, l, n, e].

    Returns:
        A function that computes the attention, [b, l, n, e], and one that computes the gradients
        of its sum of squares to queries, keys and values, each of that shape; both in float32.
    """
    inputs = [torch.tensor(np.asarray(x, np.float32)).to(_TYPES[x.dtype.name]) for x in (q, k, v)]

    def attend(tensors: list[torch.Tensor]) -> torch.Tensor:
        q, k, v = (x.transpose(1, 2) for x in tensors)  # [b, n, l, e]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def forward() -> np.ndarray:
        with torch.no_grad():
            return attend(inputs).float().numpy()

    def backward() -> list[np.ndarray]:
        tensors = [x.requires_grad_() for x in (x.detach() for x in inputs)]
        loss = attend(tensors).float().square().sum()
        return [x.float().numpy() for x in torch.autograd.grad(loss, tensors)]

    return forward, backward
