"""The same network here and in PyTorch, eager and compiled: the video DiT, Flux or AnimateDiff.

    python -m bench.pytorch --out=runs/pytorch
    python -m bench.pytorch --out=runs/pytorch_dit --network=video_dit --heads=2 --blocks 2 2 \
      --frames=16 --frame_size=32 --batch=8         # the last stage of configs/flow.py

Layers are compiled one by one, as in configs/flow.py; `--scan` compiles one for all.

Forward passes, steps (forward and backward of the mean square of the output) and whole training
steps (a step, clipping, the optimizer of the network's config and the moving average) take turns in
one run, on the same device and as many threads; first both networks must agree on outputs and on
the gradient's norm. Needs requirements-test.txt; on a GPU, a CUDA build of PyTorch beside
JAX's. Writes pytorch.json and pytorch.md. Exit codes: 0 done; 1 the networks differ; 2 bad input.
"""

import argparse
import copy
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from bench.animatediff_twin import ANIMATEDIFF
from bench.cost_page import spread
from bench.flux_twin import FLUX
from bench.pytorch_optimizer import our_update, their_update
from bench.pytorch_twin import Inputs, Twin, make_inputs, make_params
from bench.report_files import facts, write_report
from bench.timing import CLOCK_NAMES, CLOCKS, add_clock_flag, quartiles, time_interleaved
from bench.video_dit_twin import VIDEO_DIT
from experiments.command_line import command_parser, output_folder
from experiments.pages.markdown import number, table
from tpdiff_jax.devices.facts import package_versions
from tpdiff_jax.devices.host_memory import reuse_large_blocks
from tpdiff_jax.models import Network
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.types import Array, Params, Strides

EXIT_DIFFERENT, EXIT_BAD_INPUT = 1, 2
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
WORKS = ("forward", "step", "train")
FULL: Strides = (1, 1, 1)
TWINS: dict[str, Twin] = {"flux": FLUX, "animatediff": ANIMATEDIFF, "video_dit": VIDEO_DIT}
Case = Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, time, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    reuse_large_blocks()  # as training does; PyTorch's blocks come from the same allocator
    try:
        report = facts("pytorch", arguments) | measure(options)
    except ValueError as error:
        print(f"pytorch: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    write_report(options.out, "pytorch", report, write_page(report))
    return EXIT_DIFFERENT if report["is_different"] else 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return facts, differences, and timings unless the networks differ.

    Raises:
        ValueError: for a network that cannot be built, or a GPU that PyTorch does not see.
    """
    twin = TWINS[options.network]
    network = twin.network(options)
    config = network.config
    device = torch_device()
    torch.set_num_threads(num_cores())
    shape = (options.frames, options.frame_size, options.frame_size)
    network.check_shape(shape, FULL)
    params = make_params(network)
    inputs = make_inputs(twin, config, options.batch, shape)
    model = twin.make_model(config, params).to(device)
    given = twin.arguments(config, inputs, device)
    ours = our_cases(network, params, inputs, twin.optimizer)
    theirs = their_cases(model, given, config.dtype, twin.optimizer)
    differences = compare(twin, network, inputs, ours, theirs, model)
    cases = {f"{work}/tpdiff_jax": ours[work] for work in WORKS}
    cases |= {f"{work}/PyTorch, eager": theirs[work] for work in WORKS}
    if not options.nocompile:
        print("compiling with torch.compile", file=sys.stderr)
        compiled = their_cases(torch.compile(model), given, config.dtype, twin.optimizer)
        cases |= {f"{work}/PyTorch, compiled": compiled[work] for work in WORKS}
    is_different = max(differences.values()) > TOLERANCES[config.dtype]
    report = {
        "network": twin.title,
        "versions": package_versions() | {"torch": torch.__version__},
        "threads": num_cores(),
        "clock": CLOCK_NAMES[options.clock],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "tokens": options.batch * network.num_tokens(shape),
        "forward_flops": options.batch * network.flops(shape),
        "differences": differences,
        "is_different": is_different,
        "seconds": {},
    }
    if not is_different:
        with Progress(options.rounds, label="timing", unit="round") as progress:
            timed = time_interleaved(
                cases,
                rounds=options.rounds,
                min_seconds=0.02,
                on_round=progress.update,
                clock=CLOCKS[options.clock],
            )
        report["seconds"] = {name: column.tolist() for name, column in timed.items()}
    return report


def our_cases(network: Network, params: Params, inputs: Inputs, optimizer: str) -> dict[str, Case]:
    """Return our forward pass, step, which returns the gradient, and training step.

    Args:
        network: ours.
        params: of the network.
        inputs: a batch.
        optimizer: "adamw" or "muon".
    """

    def forward(params: Params, inputs: Inputs) -> Array:
        x_t, t, positions, cond = inputs
        return network.apply(params, x_t, t, positions, FULL, cond)

    def loss(params: Params, inputs: Inputs) -> Array:
        return jnp.mean(jnp.square(forward(params, inputs)))

    gradient = jax.jit(jax.grad(loss))
    return {
        "forward": functools.partial(jax.jit(forward), params, inputs),
        "step": functools.partial(gradient, params, inputs),
        "train": our_update(optimizer, gradient, params, inputs),
    }


def their_cases(
    model: Any, given: Mapping[str, Any], dtype: str, optimizer: str
) -> dict[str, Case]:
    """Return the same of PyTorch; all wait for the device, the step leaves gradients behind.

    The training step trains a copy, so that the other cases keep the parameters that were compared.

    Args:
        model: the network, compiled or not.
        given: its arguments.
        dtype: of the products.
        optimizer: "adamw" or "muon".
    """
    kind = given["timestep"].device.type
    in_bfloat16 = torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16")
    synchronize = torch.cuda.synchronize if kind == "cuda" else lambda: None

    def forward() -> torch.Tensor:
        with torch.no_grad(), in_bfloat16:
            output = model(**given).sample
        synchronize()
        return output

    def backward(model: Any) -> None:
        model.zero_grad(set_to_none=True)
        with in_bfloat16:
            output = model(**given).sample
        output.float().square().mean().backward()

    def step() -> None:
        backward(model)
        synchronize()

    trained = copy.deepcopy(model)
    update = their_update(optimizer, trained)

    def train() -> None:
        backward(trained)
        update()
        synchronize()

    return {"forward": forward, "step": step, "train": train}


def compare(
    twin: Twin,
    network: Network,
    inputs: Inputs,
    ours: Mapping[str, Case],
    theirs: Mapping[str, Case],
    model: torch.nn.Module,
) -> dict[str, float]:
    """Return how far outputs and the norms of the gradients are apart, relatively."""
    output, expected = np.asarray(ours["forward"]()), theirs["forward"]()
    _, num_frames, height, width, _ = inputs.x_t.shape
    video = twin.to_video(network.config, expected, (num_frames, height, width))
    theirs["step"]()
    squares = [p.grad.float().square().sum() for p in model.parameters() if p.grad is not None]
    norm = float(torch.stack(squares).sum().sqrt())
    own_squares = [float(jnp.sum(jnp.square(g))) for g in jax.tree.leaves(ours["step"]())]
    return {
        "output": float(np.linalg.norm(output - video) / np.linalg.norm(video)),
        "gradient_norm": abs(sum(own_squares) ** 0.5 / norm - 1.0),
    }


def torch_device() -> torch.device:
    """Return PyTorch's device of the kind that JAX runs on.

    Raises:
        ValueError: when it has none.
    """
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if jax.default_backend() != "gpu" or not torch.cuda.is_available():
        raise ValueError(
            f"JAX runs on {jax.default_backend()}, where PyTorch {torch.__version__} does not; "
            "set JAX_PLATFORMS=cpu or install a build of PyTorch for this device"
        )
    return torch.device("cuda")


def num_cores() -> int:
    """Return the cores that this process may use: as many threads as XLA starts."""
    return len(os.sched_getaffinity(0))


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    device, differences = report["device"], report["differences"]
    shares = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    lines = [
        "# The same network in PyTorch",
        f"{report['network']}, {number(report['parameters'] / 1e6)} million parameters, "
        f"{report['tokens']} tokens, on {device['platform']}, {device['kind']}, "
        f"{report['threads']} threads, {report['clock']}. Relative differences: {shares}. "
        f"Command: `{report['command']}`",
    ]
    if report["is_different"]:
        return "\n\n".join([*lines, "**The networks differ: nothing was timed.**"]) + "\n"
    lines += [
        "All cases took turns; ratios are taken within a round. Medians [quartiles]; a ratio above "
        "1 means that PyTorch takes longer. A step is forward and backward, `train` a step with "
        "clipping, optimizer and moving average (its FLOPs are those of the step).",
        table(["", "", "ms", "GFLOP/s", "time over ours"], _rows(report)),
    ]
    return "\n\n".join(lines) + "\n"


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, seconds in report["seconds"].items():
        work, _, who = name.partition("/")
        time = quartiles(np.array(seconds))
        flops = report["forward_flops"] * (1.0 if work == "forward" else 3.0)
        ratio = quartiles(np.array(seconds) / np.array(report["seconds"][f"{work}/tpdiff_jax"]))
        rows.append(
            [
                *(work, who, spread(time._asdict(), 1e3), number(flops / time.median / 1e9)),
                spread(ratio._asdict()),
            ]
        )
    return sorted(rows, key=lambda row: WORKS.index(row[0]))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.pytorch", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--network", choices=sorted(TWINS), default="flux")
    parser.add_argument(
        "--heads", type=int, default=6,
        help="attention heads: of 64 channels, or of 32, 64, 128, 128 in AnimateDiff's levels",
    )  # fmt: skip
    parser.add_argument(
        "--blocks", type=int, nargs=2, default=(2, 4), help="flux: double and single blocks"
    )
    parser.add_argument("--frames", type=int, default=4, help="frames of a clip")
    parser.add_argument("--frame_size", type=int, default=16, help="height and width of a frame")
    parser.add_argument("--batch", type=int, default=2, help="clips")
    parser.add_argument("--dtype", choices=sorted(TOLERANCES), default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each case")
    parser.add_argument(
        "--scan", action="store_true", help="video_dit, flux: one compiled block for all layers"
    )
    parser.add_argument("--nocompile", action="store_true", help="leave torch.compile out")
    add_clock_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
