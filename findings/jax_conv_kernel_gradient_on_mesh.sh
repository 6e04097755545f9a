#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2), 4 forced CPU devices, float32; jax 0.12.0.1 does the same.
#
# Good guess: how arrays are divided changes speed and last digits. Images whose rows are divided along one axis of a
#   mesh ("context", "spatial") give the kernel of a convolution the gradient of one device; a wrong one would be seen
#   in the outputs as well.
# What happens: the outputs are right, and so is the gradient with the batch divided, with rows on a mesh of one axis,
#   and with every axis of the mesh in use. With rows or columns divided along one axis, and another axis of the mesh
#   on which all devices do the same, the kernel's gradient is that of one device times the size of the other axis.
#   Nothing warns, the loss is right, and training goes on with one layer's rate doubled.
# Seen: ratios of gradients printed below: 2 on 2 x 2 devices. A sharding constraint around the convolution that leaves
#   its rows and columns whole makes it 1 again. So compare gradients on a mesh with one more axis than is needed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile jax==0.10.2 jaxlib==0.10.2 2> /dev/null
cat > "$dir/gradient.py" <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DEVICES = np.array(jax.devices())
MESHES = {
    "2 x 2": Mesh(DEVICES.reshape(2, 2), ("rows", "other")),
    "2": Mesh(DEVICES[:2], ("rows",)),
}
rng = np.random.default_rng(0)
images = rng.standard_normal((4, 8, 8, 3)).astype(np.float32)
kernel = rng.standard_normal((3, 3, 3, 5)).astype(np.float32)
weights = rng.standard_normal((4, 8, 8, 5)).astype(np.float32)


def outputs(kernel, images, whole=None):
    axes = ("NHWC", "HWIO", "NHWC")
    if whole is not None:
        images = jax.lax.with_sharding_constraint(images, whole)
    y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=axes)
    return y if whole is None else jax.lax.with_sharding_constraint(y, whole)


def gradient(kernel, images, whole=None):
    loss = lambda kernel: jnp.sum(weights * outputs(kernel, images, whole))
    return jax.grad(loss)(kernel)


one_device, one_output = jax.jit(gradient)(kernel, images), jax.jit(outputs)(kernel, images)
CASES = [
    ("2 x 2", ("rows",), False, 1),
    ("2", (None, "rows"), False, 1),
    ("2 x 2", (None, "rows", "other"), False, 1),
    ("2 x 2", (None, "rows"), False, 2),
    ("2 x 2", (None, None, "other"), False, 2),
    ("2 x 2", (None, "rows"), True, 1),
]
for name, axes, is_whole, expected in CASES:
    mesh = MESHES[name]
    divided = jax.device_put(images, NamedSharding(mesh, PartitionSpec(*axes)))
    placed = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    whole = NamedSharding(mesh, PartitionSpec()) if is_whole else None
    found = np.asarray(jax.jit(lambda k, x: gradient(k, x, whole))(placed, divided))
    output = np.asarray(jax.jit(lambda k, x: outputs(k, x, whole))(placed, divided))
    np.testing.assert_allclose(output, one_output, atol=1e-4)
    ratio = float(np.vdot(found, one_device) / np.vdot(one_device, one_device))
    print(f"mesh {name}, images divided {axes}, {'whole' if is_whole else 'as divided'} inside: gradient times {ratio:.3f}")
    np.testing.assert_allclose(found, expected * np.asarray(one_device), atol=1e-3)
PY
JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 "$dir/venv/bin/python" "$dir/gradient.py"
echo "as described"
