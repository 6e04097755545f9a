"""Files of a finished run, made up, and a reader of pages for the tests of reports."""

import json
import math
from html.parser import HTMLParser

import numpy as np

from tpdiff_jax.files import media

PAPER = "https://arxiv.org/abs/2503.09566"  # the one address outside that pages name
STAGES = [(4, 4, 1.0, 2 / 3), (2, 8, 0.7388, 1 / 3), (1, 16, 0.4142, 0.0)]
METRICS = {
    "label_accuracy": (0.86, 0.95, 0.94, 0.93, "higher", "", "Digits that a classifier reads."),
    "identity_consistency": (0.91, 0.986, 1.0, 0.98, "higher", "", "Same digit in every frame."),
    "speed_histogram_distance": (0.11, 0.02, 1.4, 2.2, "lower", "pixels", "Against real speeds."),
    "frechet_distance": (41.0, 6.3, 210.0, 95.0, "lower", "", "In a fixed feature space."),
    "nearest_train_distance": (3.1, 3.3, 3.2, 3.3, "match", "1", "Small means memorised."),
}


def write_metrics(workdir, num_steps=2000, with_eval=True):
    rng = np.random.default_rng(0)
    lines = []
    for step in range(20, num_steps + 1, 20):
        line = {"step": step, "stage": step % 3, "loss": 0.1 + math.exp(-step / 400)}
        for i, seconds_ in enumerate((0.12, 0.2, 0.37)):
            noise = 1 + 0.06 * rng.standard_normal()
            line[f"loss_stage_{i}"] = (0.4 - 0.1 * i + math.exp(-step / (300 + 90 * i))) * noise
            line[f"step_seconds_stage_{i}"] = seconds_ * (1 + 0.03 * rng.standard_normal())
        line |= {
            "grad_norm": None if step == 400 else 0.8 * math.exp(-step / 900),
            "learning_rate": 1e-3 * min(1, step / 100) * (1 + math.cos(math.pi * step / 2000)) / 2,
            "alignment_gain": 0.021 + 0.001 * rng.standard_normal(),
            "noise_mean": 1e-3 * rng.standard_normal(),
            "noise_var": 1 + 3e-3 * rng.standard_normal(),
            "videos_per_second": 140 + 4 * rng.standard_normal(),
            "frames_per_second": 1300 + 40 * rng.standard_normal(),
            "flops_per_second": 1.1e11 * (1 + 0.02 * rng.standard_normal()),
            "peak_share": 0.42 + 0.01 * rng.standard_normal(),
            "train_flops": 2.6e10 * step,
            "train_seconds": 0.23 * step,
            "samples_seen": 32 * step,
            "skipped_steps": 0,
        }
        lines.append(line)
        if with_eval and step % 400 == 0:
            share = 1 - math.exp(-step / 700)
            lines.append(
                {"step": step}
                | {
                    f"eval/{name}": shuffled + share * (value - shuffled)
                    for name, (value, _, _, shuffled, *_) in METRICS.items()
                }
            )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)


def write_results(workdir):
    t = np.linspace(0, 1, 201)
    flops = (1.5e8, 3.1e8, 6.6e8)
    results = {
        "metrics": {name: row[0] for name, row in METRICS.items()},
        "references": {
            key: {name: row[k] for name, row in METRICS.items()}
            for k, key in ((1, "ceiling"), (2, "frozen"), (3, "shuffled"))
        },
        "metric_info": {
            name: {"direction": row[4], "unit": row[5], "meaning": row[6]}
            for name, row in METRICS.items()
        },
        "counts": {"steps": 2000, "samples_seen": 64000, "parameters": 5_431_808},
        "seeds": {"train": 0, "sample": 0, "eval": 1},
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8"},
        "device": {"platform": "cpu", "kind": "cpu", "num_devices": 1, "cpu_cores": 2},
        "stages": [
            {
                "index": i,
                "frame_stride": stride,
                "num_frames": frames,
                "t_start": t_start,
                "t_end": t_end,
                "flops_per_video": flops[i],
                "step_seconds": (0.12, 0.2, 0.37)[i],
                "steps": 10,
            }
            for i, (stride, frames, t_start, t_end) in enumerate(STAGES)
        ],
        "schedule": {"t": t.tolist(), "gamma": (1 - t).tolist(), "sigma": t.tolist()},
        "timing": {"train_seconds": 460.2, "compile_seconds": 31.5, "sample_seconds": 3.21},
    }
    (workdir / "results.json").write_text(json.dumps(results))


def write_goodput(workdir):
    """Two sessions of 100 s; the second does 20 of the first one's 80 steps again."""
    lines = [
        {"step": 80, "from_step": 0, "session": "a", "ended_at": 100.0, "wall_seconds": 100.0}
        | {"start_seconds": 20.0, "training_seconds": 80.0},
        {"step": 120, "from_step": 60, "session": "b", "ended_at": 230.0, "wall_seconds": 100.0}
        | {"start_seconds": 40.0, "training_seconds": 60.0},
    ]
    (workdir / "goodput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_config(workdir):
    config = {
        "data": {"name": "moving_digits", "num_frames": 16, "frame_size": 32, "num_digits": 1},
        "model": {"name": "video_dit", "patch_size": 8, "hidden_size": 256, "dtype": "float32"},
        "path": {"name": "flow", "prediction": "v"},
        "pyramid": {"frame_strides": [4, 2, 1], "stage_fractions": [], "upsample": "nearest"},
        "train": {"num_steps": 2000, "batch_size": 32, "seed": 0, "stage_probs": []},
        "sample": {"num_steps": 30, "solver": "euler", "renoise": True, "guidance_scale": 2.0},
    }
    (workdir / "config.json").write_text(json.dumps(config))


def write_samples(workdir, num_videos=16, name="label_7"):
    y, x = np.mgrid[:32, :32]
    f = np.arange(16)[:, None, None]
    videos = []
    for j in range(num_videos):
        centre_x = 16 + 9 * np.sin(0.35 * f + j)
        centre_y = 16 + 9 * np.cos(0.2 * f + 2 * j)
        blob = np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / 14)
        videos.append(np.uint8(255 * blob)[..., None])
        media.write_mp4(workdir / "samples" / f"{j:04d}_{name}.mp4", videos[-1])
    captions = [str(j % 10) for j in range(num_videos)]
    media.write_gif_grid(workdir / "samples" / "grid.gif", np.stack(videos), captions=captions)


def make_run(workdir):
    """A finished run's directory."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_metrics(workdir)
    write_results(workdir)
    write_config(workdir)
    write_goodput(workdir)
    write_samples(workdir)
    return workdir


def stages_of(*, shapes, strides):
    """Stage rows as newer result files have them."""
    return [
        {"index": i, "shape": shape, "strides": stride, "t_start": 1.0, "t_end": 0.0}
        for i, (shape, stride) in enumerate(zip(shapes, strides, strict=True))
    ]


class Page(HTMLParser):
    """Collects tags left open, addresses, names of elements and what points to them."""

    _VOID = {"meta", "img", "br", "link", "input", "source"}

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text = [], [], []
        self.tags, self.ids, self.references = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self._VOID:
            self.open.append(tag)
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        pointers = [v for k, v in attrs if k == "href" and v.startswith("#")]
        self.references += [v.removeprefix("#") for v in pointers]
        self.references += [v for k, v in attrs if k == "aria-describedby"]
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "srcset")]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    parser = Page()
    parser.feed(path.read_text())
    parser.close()
    assert parser.open == []
    return parser
