"""How fast are clips decoded, beside others, and does memory stay flat?

    python -m bench.decode --against=OLD_TREE --decord --out=runs/decode_bench

Processes on one core, here, in another checkout and with decord (pip install decord), read the same
clip in turn, so that whatever else the machine does slows all: the ratio of their processor times
is what counts. decord opens the file, finds the same sixteen frames by their times, scales them
with its own bicubic filter and cuts out the middle, in one thread. Then a last process
decodes `--clips` clips of several kinds (8 and 10 bits, interlaced, HDR, an animation) and its
resident memory is written down on the way. Writes decode.json and decode.md.

Exit codes: 0 done.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import av
import numpy as np
from PIL import Image

from bench.data import VIDEO_FPS, VIDEOS, write_video
from bench.report_files import facts, write_report
from experiments.command_line import command_parser, output_folder
from experiments.pages.markdown import number, table

REPO = pathlib.Path(__file__).resolve().parent.parent
# Programs that read a clip of 16 frames of 128x128: how, and then the loop that all have in common.
# Its input has paths, and the width of the picture when it is 128 pixels high; it answers with
# processor seconds and resident bytes.
OURS = """
import os, pathlib, sys
sys.path.insert(0, os.getcwd())
from fractions import Fraction
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips
spec = ClipFormat(buckets=(Bucket(16, 128, 128),), fps=Fraction(8), clips_per_video=1,
                  max_pixels=2 * 10**10, max_seconds=600.0)
def read(path, width):
    read_clips(pathlib.Path(path), spec)
"""
DECORD = """
import numpy as np
from decord import VideoReader
def read(path, width):
    reader = VideoReader(path, width=width, height=128, num_threads=1)
    times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    first = times[0] + max(0, times[-1] - times[0] - 15 / 8) / 2
    chosen = [int(np.argmin(np.abs(times - first - i / 8))) for i in range(16)]
    left = (width - 128) // 2
    reader.get_batch(chosen).asnumpy()[:, :, left : left + 128]
"""
LOOP = """
import os, sys, time
for line in sys.stdin:
    path, width = line.split("\\t")
    start = time.process_time()
    read(path, int(width))
    seconds = time.process_time() - start
    pages = int(open("/proc/self/statm").read().split()[1])
    print(seconds, pages * os.sysconf("SC_PAGE_SIZE"), flush=True)
"""
KINDS = {  # of the memory test: name -> codec, pixel format, options, tags of the stream
    "plain.mp4": ("libx264", "yuv420p", {"preset": "veryfast"}, {}),
    "interlaced.mp4": ("libx264", "yuv420p", {"preset": "veryfast", "x264-params": "tff=1"}, {}),
    "hdr.mp4": (
        "libx264", "yuv420p10le", {"preset": "veryfast"},
        {"colorspace": 9, "color_primaries": 9, "color_trc": 16},
    ),
    "stream.ts": ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"}, {}),
    "animation.gif": ("gif", "rgb8", {}, {}),
}  # fmt: skip
OTHERS = ("before", "decord")
MEBIBYTE = 2**20


class Worker:
    """A process in a tree that decodes a clip of each file it is told of."""

    def __init__(self, tree: pathlib.Path, code: str = OURS) -> None:
        taskset = [found, "-c", "0"] if (found := shutil.which("taskset")) else []
        self.process = subprocess.Popen(
            [*taskset, sys.executable, "-c", code + LOOP],
            cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def decode(self, path: pathlib.Path, width: int = 128) -> tuple[float, int]:
        """Return processor seconds, and resident bytes afterwards; `width` at a height of 128."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self.process.stdin.write(f"{path}\t{width}\n")
        self.process.stdin.flush()
        seconds, resident = self.process.stdout.readline().split()
        return float(seconds), int(resident)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        report = facts("decode", arguments) | {
            "rounds": options.rounds,
            "seconds": compare(folder, options.against, options.decord, options.rounds),
            "resident": resident_bytes(folder, options.clips),
        }
    write_report(options.out, "decode", report, write_page(report))
    return 0


def compare(
    folder: pathlib.Path, tree: pathlib.Path | None, with_decord: bool, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return processor seconds a clip of each reader, taken in turn, for each kind of video."""
    workers = {"now": Worker(REPO)}
    if tree:
        workers["before"] = Worker(tree)
    if with_decord:
        workers["decord"] = Worker(REPO, DECORD)
    found: dict[str, Any] = {}
    for name, (codec, height, width, coding) in VIDEOS.items():
        path = folder / f"{codec}_{height}.mp4"
        write_video(path, 0, codec, height, width, coding)
        seconds: dict[str, list[float]] = {which: [] for which in workers}
        for r in range(rounds + 1):
            for which in sorted(workers, reverse=bool(r % 2)):
                taken, _ = workers[which].decode(path, round(width * 128 / height))
                if r:  # the first one warms up
                    seconds[which].append(taken)
        found[name] = seconds
    for worker in workers.values():
        worker.close()
    return found


def resident_bytes(folder: pathlib.Path, clips: int) -> list[tuple[int, int]]:
    """Return (clips decoded, resident bytes) ten times over the way, kinds in turn."""
    paths = [write_kind(folder / name, *kind) for name, kind in KINDS.items()]
    worker, found = Worker(REPO), []
    for i in range(1, clips + 1):
        _, resident = worker.decode(paths[i % len(paths)])
        if i % max(clips // 10, 1) == 0:
            found.append((i, resident))
    worker.close()
    return found


def write_kind(
    path: pathlib.Path,
    codec: str,
    pix_fmt: str,
    options: Mapping[str, str],
    tags: Mapping[str, int],
) -> pathlib.Path:
    """Write three seconds of noise that moves, 320x180."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=VIDEO_FPS, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = 180, 320, pix_fmt
        for name, code in tags.items():
            setattr(stream.codec_context, name, code)
        for i in range(3 * VIDEO_FPS):
            picture = Image.fromarray(np.roll(noise, i, 1)).resize((320, 180))
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    return path


def write_page(report: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = []
    others = [which for which in OTHERS if which in next(iter(report["seconds"].values()))]
    for name, seconds in report["seconds"].items():
        now = np.array(seconds["now"])
        cells = [name, number(1e3 * np.median(now))]
        for which in others:
            low, middle, high = np.quantile(np.array(seconds[which]) / now, (0.25, 0.5, 0.75))
            cells += [
                number(1e3 * np.median(seconds[which])),
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
            ]
        rows.append(cells)
    heads = [cell for which in others for cell in (f"{which}, ms", f"{which} / now")]
    resident = [[str(clips), number(size / MEBIBYTE)] for clips, size in report["resident"]]
    parts = [
        "# Decoding",
        f"16 frames at 8 a second, to 128x128, on one core of {report['device']['machine']}. "
        f"Command: `{report['command']}`",
    ]
    parts += [
        "## Processor time of a clip",
        f"Medians of {report['rounds']} rounds in which all decode in turn; a ratio is the median "
        "of the rounds' ratios, with quartiles.",
        table(["video", "now, ms", *heads], rows),
    ]
    parts += [
        "## Resident memory",
        f"One process, clips of {', '.join(KINDS)} in turn.",
        table(["clips decoded", "MiB"], resident),
    ]
    return "\n\n".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.decode", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--against", type=pathlib.Path, help="checkout to compare with")
    parser.add_argument("--decord", action="store_true", help="beside decord, if it is installed")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each kind of video")
    parser.add_argument("--clips", type=int, default=1000, help="clips of the memory test")
    return parser


if __name__ == "__main__":
    sys.exit(main())
