"""Can data keep up? Decoding, loading and training of real clips, in processor time.

    python -m bench.data --out=runs/data_bench

Decodes clips from H.264, VP9 and MPEG-4 files, prepares them, loads them as training does, and
runs training steps on them; the same for Moving Digits, which are rendered as they are needed. All
figures are seconds of processor time, so that a machine shared with others gives the same ones,
and "how much faster" compares work on the same cores. The videos pan over photographs
(scikit-learn's samples) with sensor-like noise. Writes data.json and data.md.

Exit codes: 0 done.
"""

import argparse
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_sample_images

from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder
from experiments.grid.overrides import read_config
from experiments.pages.markdown import number, table
from tpdiff_jax.data import make_iterator
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.prepare_config import build_prepare
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.video_decode import read_clips
from tpdiff_jax.prepare import prepare
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.training.step_programs import compile_steps

VIDEOS = {  # name -> codec, height, width, options
    "H.264 640x360": ("libx264", 360, 640, {"preset": "veryfast", "g": "60"}),
    "H.264 1920x1080": ("libx264", 1080, 1920, {"preset": "veryfast", "g": "60"}),
    "VP9 640x360": ("libvpx-vp9", 360, 640, {"deadline": "realtime", "cpu-used": "8", "g": "60"}),
    "MPEG-4 640x360": ("mpeg4", 360, 640, {"g": "60"}),
}
SUFFIXES = {"libx264": ".mp4", "libvpx-vp9": ".webm", "mpeg4": ".avi"}
VIDEO_FPS, VIDEO_SECONDS = 30, 6
FLOW_NETWORK = {  # the network of configs/flow.py, on pixels in colour
    "model.patch_size": "8",
    "model.hidden_size": "128",
    "model.num_heads": "2",
    "model.depth": "4",
}
DIGITS = "Moving Digits 32x32, configs/flow.py"
LARGE = "clips 128x128, configs/video_folder.py"
PREPARED: dict[str, tuple[int, Mapping[str, str]]] = {
    "clips 32x32, network of configs/flow.py": (32, FLOW_NETWORK),
    LARGE: (128, {}),
}
AIM = 5.0
ENOUGH_SECONDS = 30.0  # of processor time of one case


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = dict(PREPARED)
        if options.nolarge:
            del prepared[LARGE]
        figures = measure(pathlib.Path(scratch), options.videos, options.rounds, prepared)
    report = facts("data", arguments) | figures
    write_report(options.out, "data", report, write_page(report))
    return 0


def measure(
    scratch: pathlib.Path,
    num_videos: int,
    rounds: int,
    prepared: Mapping[str, tuple[int, Mapping[str, str]]],
) -> dict[str, Any]:
    """Return facts and figures."""
    decoding = {}
    with Progress(len(VIDEOS), label="decode", unit="kind") as progress:
        for done, (name, (codec, height, width, coding)) in enumerate(VIDEOS.items(), 1):
            folder = scratch / codec / str(height)
            folder.mkdir(parents=True)
            for i in range(num_videos):
                write_video(folder / f"{i}{SUFFIXES[codec]}", i, codec, height, width, coding)
            decoding[name] = decode_seconds(folder, rounds)
            progress.update(done)
    configs = {DIGITS: read_config("configs/flow.py", {})}
    for name, (size, overrides) in prepared.items():
        folder = scratch / f"clips_{size}"
        prepare(prepare_spec(scratch / "libx264" / "360", size), folder)
        overrides = {**overrides, "data.folder": str(folder)}
        configs[name] = read_config("configs/video_folder.py", overrides)
    return {
        "videos": {"seconds": VIDEO_SECONDS, "fps": VIDEO_FPS, "count": num_videos},
        "rounds": rounds,
        "decode_seconds_per_clip": decoding,
        "trainings": {name: training_figures(c, rounds) for name, c in configs.items()},
    }


def write_video(
    path: pathlib.Path, seed: int, codec: str, height: int, width: int, options: dict[str, str]
) -> None:
    """Write a video that pans over a photograph."""
    photo = Image.fromarray(load_sample_images().images[seed % 2])
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 3.0, (2 * height, 2 * width, 1)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=VIDEO_FPS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = options
        for i in range(VIDEO_FPS * VIDEO_SECONDS):
            left, top = 40.0 + 0.4 * i, 30.0 + 0.2 * i
            box = (left, top, left + 480.0, top + 270.0)
            picture = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box))
            y, x = rng.integers(0, height), rng.integers(0, width)
            noisy = picture + noise[y : y + height, x : x + width]
            frame = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def prepare_spec(source: pathlib.Path, size: int) -> PrepareSpec:
    """Return the default preparation of a folder, at another size, in this process."""
    fields = {"source": str(source), "height": str(size), "width": str(size)}
    fields |= {"num_workers": "0", "test_share": "0.0"}
    overrides = {f"prepare.{name}": value for name, value in fields.items()}
    return build_prepare(read_config("configs/prepare.py", overrides))


def decode_seconds(folder: pathlib.Path, rounds: int) -> list[float]:
    """Return processor seconds of one clip in each round."""
    spec, paths = prepare_spec(folder, 128).clip_format, sorted(folder.iterdir())
    return processor_seconds(lambda r: read_clips(paths[r % len(paths)], spec), rounds)


def training_figures(config: ConfigDict, rounds: int) -> dict[str, Any]:
    """Return processor seconds of a clip: loaded as training loads it, and trained on."""
    experiment = build_experiment(config)
    batch_size = experiment.train.batch_size
    batches = make_iterator(
        experiment.dataset,
        split="train",
        seed=0,
        clips_of_step=lambda step: range(step * batch_size, (step + 1) * batch_size),
        num_threads=0,
    )
    loading = processor_seconds(lambda _: next(batches), rounds)
    key = jax.random.key(0)
    steps = compile_steps(experiment, abstract_train_state(experiment), key)
    held, on_device = [make_state(experiment, key)], iterate_batches(experiment, 0)
    batch = next(on_device)
    training = []
    for stage, step in enumerate(steps):

        def call(_: int, step: Any = step) -> None:
            held[0], metrics = step(held[0], batch, key)
            jax.block_until_ready(metrics)

        share = experiment.train.stage_probs[stage] / batch_size
        training.append(share * np.median(processor_seconds(call, rounds)))
    load, train = float(np.median(loading)) / batch_size, float(sum(training))
    return {"load_seconds_per_clip": load, "train_seconds_per_clip": train, "ratio": train / load}


def processor_seconds(call: Callable[[int], Any], rounds: int) -> list[float]:
    """Return the processor time of each of `rounds` calls, after one that warms up.

    Calls end early once they have taken `ENOUGH_SECONDS`: long ones differ little from each other.
    """
    call(0)
    seconds: list[float] = []
    for r in range(rounds):
        if sum(seconds) > ENOUGH_SECONDS:
            break
        start = time.process_time()
        call(r)
        seconds.append(time.process_time() - start)
    return seconds


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    device = report["device"]
    decoding = [
        [name, number(1e3 * np.median(seconds)), number(1 / np.median(seconds))]
        for name, seconds in report["decode_seconds_per_clip"].items()
    ]
    trainings = [
        [
            name,
            number(1 / figures["load_seconds_per_clip"]),
            number(1 / figures["train_seconds_per_clip"]),
            number(figures["ratio"]),
        ]
        for name, figures in report["trainings"].items()
    ]
    return "\n\n".join(
        [
            "# Data",
            f"Processor time (all threads together) on {device['platform']}, {device['machine']}; "
            f"medians of {report['rounds']} calls, or of as many as took {ENOUGH_SECONDS:g} s. "
            f"Command: `{report['command']}`",
            "## Decoding: 16 frames at 8 a second, to 128x128",
            table(["video", "ms a clip", "clips/s per core"], decoding),
            "## Loading against training on the same cores",
            table(["clips", "loaded/s per core", "trained/s per core", "ratio"], trainings),
            f"Aim: loading at least {AIM:g} times as fast as training.",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.data", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--videos", type=int, default=8, help="videos of each kind")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each case")
    parser.add_argument(
        "--nolarge", action="store_true",
        help="leave out configs/video_folder.py, whose steps take a CPU minutes to compile",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
