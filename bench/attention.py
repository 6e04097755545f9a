"""Attention kernels side by side: those that exist on this device, forward and with gradient.

    python -m bench.attention --out=runs/attention

    textbook   softmax(q k^T) v with heads first and everything in float32
    jax.nn     the library's own, by XLA
    xla        ours, the default on CPUs for short sequences
    blocks     ours in blocks of keys, the default on CPUs for longer ones
    splash     on a TPU;  cudnn   on a GPU, in bfloat16
    PyTorch    its scaled_dot_product_attention, on a CPU where torch is installed

All take turns on the same arrays, at --shapes BATCHxTOKENSxHEADSxCHANNELS; they must agree first.
Scratch memory is the compiler's figure for the gradient. Writes attention.json and attention.md.
Exit codes: 0 done; 1 a kernel differs; 2 bad input.
"""

import argparse
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cost_page import spread
from bench.report_files import facts, write_report
from bench.timing import CLOCK_NAMES, CLOCKS, add_clock_flag, quartiles, time_interleaved
from experiments.command_line import command_parser, output_folder, split_names
from experiments.pages.markdown import number, table
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.models.layers.attention import Attend
from tpdiff_jax.models.layers.attention_kernels import KERNELS, check_kernel
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.types import Array

EXIT_DIFFERENT, EXIT_BAD_INPUT = 1, 2
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
# On CPUs: the default run's two attentions (of one shape), 256 patches of a frame, 1,024 of a clip.
# 4 frames of AnimateDiff at 32x32 latents, and 4,096 tokens.
CPU_SHAPES = "128x16x2x64,16x256x4x64,2x1024x4x64,4x1024x8x40,1x4096x4x64"
DEVICE_SHAPES = "16x960x16x128,4x3840x16x128,1x15360x16x128"  # of configs/dit_2b.py, by frames
WORKS = ("forward", "gradient")
Shape = tuple[int, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    reuse_large_blocks()  # as training does
    try:
        shapes = [read_shape(text) for text in split_names(options.shapes)]
    except ValueError as error:
        print(f"attention: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    report = facts("attention", arguments) | measure(shapes, options)
    write_report(options.out, "attention", report, write_page(report))
    return EXIT_DIFFERENT if report["different"] else 0


def measure(shapes: Sequence[Shape], options: argparse.Namespace) -> dict[str, Any]:
    """Return facts, differences from the textbook's result, and timings of what agrees."""
    dtype, rounds = options.dtype, options.rounds
    kernels = kernels_here(dtype)
    cases: dict[str, Callable[[], Any]] = {}
    differences: dict[str, float] = {}
    scratch: dict[str, int] = {}
    for shape in shapes:
        key = jax.random.key(0)
        arrays = [jax.random.normal(k, shape, dtype) for k in jax.random.split(key, 3)]
        expected = jax.jit(textbook_attention)(*arrays)
        for kernel, attend in kernels.items():
            name = f"{_text(shape)}/{kernel}"
            differences[name] = relative(jax.jit(attend)(*arrays), expected)
            compiled = gradient(attend).lower(*arrays).compile()
            scratch[name] = compiled.memory_analysis().temp_size_in_bytes
            cases[f"{name}/forward"] = functools.partial(jax.jit(attend), *arrays)
            cases[f"{name}/gradient"] = functools.partial(compiled, *arrays)
        if has_pytorch():
            from bench.attention_pytorch import pytorch_attention  # torch is no requirement

            name = f"{_text(shape)}/PyTorch"
            forward, backward = pytorch_attention(*arrays)
            differences[name] = relative(forward(), expected)
            cases[f"{name}/forward"], cases[f"{name}/gradient"] = forward, backward
    different = [name for name, error in differences.items() if error > TOLERANCES[dtype]]
    cases = {name: case for name, case in cases.items() if name.rpartition("/")[0] not in different}
    with Progress(rounds, label="timing", unit="round") as progress:
        seconds = time_interleaved(
            cases,
            rounds=rounds,
            min_seconds=0.02,
            on_round=progress.update,
            clock=CLOCKS[options.clock],
        )
    return {
        "dtype": dtype,
        "clock": CLOCK_NAMES[options.clock],
        "kernels": [*kernels, *(["PyTorch"] if has_pytorch() else [])],
        "scratch_bytes": scratch,
        "differences": differences,
        "different": different,
        "seconds": {name: column.tolist() for name, column in seconds.items()},
    }


def kernels_here(dtype: str) -> dict[str, Attend]:
    """Return the kernels that run on this machine's devices in this type."""
    found: dict[str, Attend] = {"textbook": textbook_attention, "jax.nn": library_attention}
    for name, attend in KERNELS.items():
        try:
            check_kernel(name, jax.default_backend(), dtype)
        except ValueError:
            continue
        found[name] = attend
    return found


def has_pytorch() -> bool:
    """Whether PyTorch's attention can be timed beside: on CPUs, where torch is installed."""
    return jax.default_backend() == "cpu" and importlib.util.find_spec("torch") is not None


def textbook_attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k^T / sqrt(e)) v, each step as it is written, [b, l, n, e]."""
    heads = (x.astype(jnp.float32).swapaxes(1, 2) for x in (q, k, v))  # [b, n, l, e]
    queries, keys, values = heads
    scores = queries @ keys.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    return (jax.nn.softmax(scores, axis=-1) @ values).swapaxes(1, 2).astype(q.dtype)


def library_attention(q: Array, k: Array, v: Array) -> Array:
    """JAX's own attention, as XLA compiles it."""
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


def gradient(attend: Attend) -> Any:
    """Return the gradient of an attention's sum of squares to queries, keys and values."""

    def loss(q: Array, k: Array, v: Array) -> Array:
        return jnp.sum(jnp.square(attend(q, k, v).astype(jnp.float32)))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


def relative(result: Any, expected: Any) -> float:
    """Return how far a result is off, as a share of what was expected."""
    a, b = (np.asarray(x, np.float64) for x in (result, expected))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def attention_flops(shape: Shape, work: str) -> float:
    """Return the FLOPs of scores and values; a gradient's products are twice as many more."""
    batch, tokens, heads, channels = shape
    return (3.0 if work == "gradient" else 1.0) * 4.0 * batch * tokens**2 * heads * channels


def read_shape(text: str) -> Shape:
    """Return the sizes in a text such as 16x256x4x64.

    Raises:
        ValueError: when it is not of that form.
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
        raise ValueError(
            f"--shapes={text} must be like 16x256x4x64: batch, tokens, heads, channels"
        )
    return tuple(map(int, text.split("x")))


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    device = report["device"]
    lines = [
        "# Attention kernels",
        f"On {device['platform']}, {device['kind']}, in {report['dtype']}, {report['clock']}; "
        f"here are: {', '.join(report['kernels'])}. All took turns; medians [quartiles]; ratios "
        f"within a round. Command: `{report['command']}`",
        table([_SHAPE, "kernel", *_HEADER, "gradient, scratch MB"], _rows(report)),
    ]
    if report["different"]:
        lines.append(f"**Differ from the textbook's result: {', '.join(report['different'])}.**")
    return "\n\n".join(lines) + "\n"


_SHAPE = "batch x tokens x heads x channels"
_HEADER = [f"{work}, {unit}" for work in WORKS for unit in ("ms", "GFLOP/s", "time over textbook")]


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    seconds = {name: np.array(column) for name, column in report["seconds"].items()}
    rows = []
    for name in report["differences"]:
        if name in report["different"]:
            continue
        shape, _, kernel = name.partition("/")
        cells = [shape, kernel]
        for work in WORKS:
            column = seconds[f"{name}/{work}"]
            rate = attention_flops(read_shape(shape), work) / float(np.median(column))
            ratio = quartiles(column / seconds[f"{shape}/textbook/{work}"])
            cells += [spread(quartiles(column)._asdict(), 1e3), number(rate / 1e9)]
            cells.append(spread(ratio._asdict()))
        scratch = report["scratch_bytes"].get(name)
        cells.append("" if scratch is None else number(scratch / 1e6))
        rows.append(cells)
    return rows


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.attention", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    default = CPU_SHAPES if jax.default_backend() == "cpu" else DEVICE_SHAPES
    parser.add_argument("--shapes", default=default, help=f"default here: {default}")
    parser.add_argument("--dtype", choices=sorted(TOLERANCES), default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each case")
    add_clock_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
