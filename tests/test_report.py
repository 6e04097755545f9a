"""report.html: self-contained, escaped, and complete however little the run left behind."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tpdiff_jax.infra import media
from tpdiff_jax.report import write_report
from tpdiff_jax.report.charts import Series, line_chart, log_ticks, ticks
from tpdiff_jax.report.markup import figure, seconds, with_prefix
from tpdiff_jax.report.result_sections import progress_to_ceiling
from tpdiff_jax.report.training_sections import relative, weighted_mean

_STAGES = [(4, 4, 1.0, 2 / 3), (2, 8, 0.7388, 1 / 3), (1, 16, 0.4142, 0.0)]
_METRICS = {
    "label_accuracy": (0.86, 0.95, 0.94, 0.93, "higher", "", "Digits that a classifier reads."),
    "identity_consistency": (0.91, 0.986, 1.0, 0.98, "higher", "", "Same digit in every frame."),
    "speed_histogram_distance": (0.11, 0.02, 1.4, 2.2, "lower", "pixels", "Against real speeds."),
    "frechet_distance": (41.0, 6.3, 210.0, 95.0, "lower", "", "In a fixed feature space."),
    "nearest_train_distance": (3.1, 3.3, 3.2, 3.3, "match", "1", "Small means memorised."),
}


def _write_metrics(workdir, num_steps=2000, with_eval=True):
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
                    for name, (value, _, _, shuffled, *_) in _METRICS.items()
                }
            )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)


def _write_results(workdir):
    t = np.linspace(0, 1, 201)
    flops = (1.5e8, 3.1e8, 6.6e8)
    results = {
        "metrics": {name: row[0] for name, row in _METRICS.items()},
        "references": {
            key: {name: row[k] for name, row in _METRICS.items()}
            for k, key in ((1, "ceiling"), (2, "frozen"), (3, "shuffled"))
        },
        "metric_info": {
            name: {"direction": row[4], "unit": row[5], "meaning": row[6]}
            for name, row in _METRICS.items()
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
            for i, (stride, frames, t_start, t_end) in enumerate(_STAGES)
        ],
        "schedule": {"t": t.tolist(), "gamma": (1 - t).tolist(), "sigma": t.tolist()},
        "timing": {"train_seconds": 460.2, "compile_seconds": 31.5, "sample_seconds": 3.21},
    }
    (workdir / "results.json").write_text(json.dumps(results))


def _write_goodput(workdir):
    """Two sessions of 100 s; the second does 20 of the first one's 80 steps again."""
    lines = [
        {"step": 80, "from_step": 0, "session": "a", "ended_at": 100.0, "wall_seconds": 100.0}
        | {"start_seconds": 20.0, "training_seconds": 80.0},
        {"step": 120, "from_step": 60, "session": "b", "ended_at": 230.0, "wall_seconds": 100.0}
        | {"start_seconds": 40.0, "training_seconds": 60.0},
    ]
    (workdir / "goodput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_config(workdir):
    config = {
        "data": {"name": "moving_digits", "num_frames": 16, "frame_size": 32, "num_digits": 1},
        "model": {"name": "video_dit", "patch_size": 8, "hidden_size": 256, "dtype": "float32"},
        "path": {"name": "flow", "prediction": "v"},
        "pyramid": {"frame_strides": [4, 2, 1], "stage_fractions": [], "upsample": "nearest"},
        "train": {"num_steps": 2000, "batch_size": 32, "seed": 0, "stage_probs": []},
        "sample": {"num_steps": 30, "solver": "euler", "renoise": True, "guidance_scale": 2.0},
    }
    (workdir / "config.json").write_text(json.dumps(config))


def _write_samples(workdir, num_videos=16, name="label_7"):
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
    _write_metrics(workdir)
    _write_results(workdir)
    _write_config(workdir)
    _write_goodput(workdir)
    _write_samples(workdir)
    return workdir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "flow")


class _Balance(HTMLParser):
    """Collects tags left open, and every address that the page names."""

    _VOID = {"meta", "img", "br", "link", "input", "source"}

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self._VOID:
            self.open.append(tag)
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


def _parsed(path):
    parser = _Balance()
    parser.feed(path.read_text())
    parser.close()
    assert parser.open == []
    return parser


def _titles(path):
    return re.findall(r"<h2>(.*?)</h2>", path.read_text())


def test_a_finished_run_gets_every_section(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert _titles(path) == [
        "Samples",
        "Results",
        "Metrics over training",
        "Training",
        "Stages",
        "Cost",
        "Throughput",
        "Where the time went",
        "Setting",
        "Config",
    ]
    parsed = _parsed(path)
    assert not [name for name in run_dir.iterdir() if name.name.endswith(".tmp")]
    page = path.read_text()
    assert page.count("<video") == 16 and page.count("data:image/gif;base64,") == 1
    text = " ".join(parsed.text)
    for name in _METRICS:
        assert name.replace("_", " ") in text


def test_the_page_needs_nothing_beside_it(run_dir):
    path = write_report(run_dir)
    for address in _parsed(path).addresses:
        assert address.startswith(("data:", "#")), address
    page = re.sub(r"base64,[A-Za-z0-9+/=]*", "", path.read_text())
    assert "http" not in page and "url(#head)" in page
    assert "@import" not in page and "<script" not in page and "NaN" not in page
    assert str(run_dir.parent) not in page  # no path of the machine that wrote it


@pytest.mark.parametrize(
    "parts, expected",
    [
        ((), []),
        ((_write_metrics,), ["Metrics over training", "Training", "Throughput"]),
        ((_write_config,), ["Config"]),
        ((_write_samples,), ["Samples"]),
        ((_write_results,), ["Results", "Stages", "Cost", "Setting"]),
        ((_write_config, _write_results), ["Results", "Stages", "Cost", "Setting", "Config"]),
    ],
)
def test_missing_parts_leave_their_sections_out(tmp_path, parts, expected):
    for write in parts:
        write(tmp_path)
    path = write_report(tmp_path)
    _parsed(path)
    assert _titles(path) == expected


def test_a_run_without_evaluation_says_so(tmp_path):
    _write_metrics(tmp_path, with_eval=False)
    assert "has not been evaluated" in write_report(tmp_path).read_text()
    _write_metrics(tmp_path)
    assert "has not been evaluated" not in write_report(tmp_path).read_text()


def test_results_with_gaps_are_shown_as_gaps(tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "metrics": {"label_accuracy": None, "other": 0.5},
                "stages": [{"index": 0, "step_seconds": None, "flops_per_video": 1e9}, {}],
                "schedule": {"t": [0, 1], "gamma": [1, None], "sigma": [0, 1]},
            }
        )
    )
    path = write_report(tmp_path)
    _parsed(path)
    assert "None" not in path.read_text()


def test_an_unreadable_file_is_named_on_the_page(tmp_path):
    (tmp_path / "results.json").write_text('{"metrics":')
    (tmp_path / "config.json").write_text("[]")
    page = write_report(tmp_path).read_text()
    assert "results.json could not be read" in page
    assert "config.json holds no JSON object" in page


def test_text_from_files_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    _write_samples(tmp_path, num_videos=1, name="<b>&'")
    (tmp_path / "config.json").write_text(json.dumps({evil: {evil: evil}, "data": {"name": evil}}))
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "metrics": {evil: 1.0},
                "references": {"ceiling": {evil: 2.0}, evil: {evil: 1.0}},
                "metric_info": {evil: {"meaning": evil, "unit": evil, "direction": "higher"}},
                "device": {"kind": evil},
                "stages": [{"num_frames": evil, "frame_stride": evil, "t_start": 1, "t_end": 0}],
                "schedule": {"t": [0, 1], "gamma": [1, 0], "sigma": [0, 1]},
            }
        )
    )
    line = {"step": 1, "loss": 1.0, f"eval/{evil}": 1.0, "loss_stage_0": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    path = write_report(tmp_path)
    _parsed(path)
    assert "<script" not in path.read_text() and "<b>&" not in path.read_text()


def test_a_missing_workdir_is_refused(tmp_path):
    with pytest.raises(ValueError, match="workdir: .* is not a directory"):
        write_report(tmp_path / "missing")


def test_periodic_samples_in_subfolders_are_not_the_final_ones(tmp_path):
    _write_samples(tmp_path, num_videos=2)
    _write_samples(tmp_path / "samples" / "step_100", num_videos=3)
    assert write_report(tmp_path).read_text().count("<video") == 2


@pytest.mark.parametrize(
    "value, ceiling, frozen, shuffled, direction, expected",
    [
        (0.9, 1.0, 0.2, 0.6, "higher", (0.75, True)),  # from the better floor, 0.6
        (3.0, 1.0, 9.0, 5.0, "lower", (0.5, True)),  # from 5
        (0.9, 1.0, 1.0, 0.6, "higher", (0.75, True)),  # a floor at the ceiling tells nothing
        (0.5, 1.0, 0.6, 0.55, "higher", (-0.25, True)),  # worse than a floor
        (0.6, 0.8, 0.79, 0.8, "higher", (0.75, False)),  # no floor clearly below
        (0.6, 0.8, None, None, "higher", (0.75, False)),
        (1.5, 2.0, 4.0, 1.0, "match", (0.5, True)),  # 0.5 off, the nearer floor is 1 off
        (2.5, 2.0, 4.0, 1.0, "match", (0.5, True)),  # to either side
        (2.5, 2.0, 2.0, 2.1, "match", (0.75, False)),
        (0.5, 1.0, 1.0, 1.0, "lower", None),  # a share of the ceiling means nothing here
        (0.5, 1.0, 0.2, 0.1, "", None),
        (0.5, None, 0.2, 0.1, "higher", None),
        (None, 1.0, 0.2, 0.1, "higher", None),
    ],
)
def test_progress_runs_from_the_nearest_clearly_worse_floor_to_the_ceiling(
    value, ceiling, frozen, shuffled, direction, expected
):
    references = {"ceiling": ceiling, "frozen": frozen, "shuffled": shuffled}
    progress = progress_to_ceiling(value, references, direction)
    assert progress == (None if expected is None else pytest.approx(expected))


def test_the_report_says_where_the_time_went(run_dir):
    page = write_report(run_dir).read_text()
    section = page[page.index("id='time'") :]
    for text in ("steps done again after a restart", "20 s", "60 %", "30 s"):
        assert text in section


def test_costs_are_relative_to_the_full_rate_stage():
    stages = [{"cost": 1.0}, {"cost": 2.0}, {"cost": 4.0}]
    assert relative(stages, "cost") == [0.25, 0.5, 1.0]
    assert relative([{}, {"cost": 4.0}], "cost") == [None, 1.0]
    assert relative([{"cost": 4.0}, {"cost": 0}], "cost") == [None, None]
    # Linear cost, strides 4, 2, 1, equal steps: 7/12 of vanilla (the paper's 1.71 times).
    assert weighted_mean([0.25, 0.5, 1.0], [1, 1, 1]) == pytest.approx(7 / 12)
    assert weighted_mean([0.25, None], [1, 1]) is None
    assert weighted_mean([0.25, 0.5], [1, None]) is None


def test_a_chart_leaves_gaps_and_skips_what_it_cannot_draw():
    chart = line_chart([Series(label="a", x=[1, 2, 3, 4, 5], y=[1, 2, None, 4, 5])], title="t")
    assert chart.count("<polyline") == 2
    assert line_chart([Series(label="a", x=[1, 2], y=[None, math.nan])], title="t") == ""
    assert line_chart([], title="t") == ""
    alone = line_chart([Series(label="a", x=[7], y=[0.0])], title="t", is_log=True)
    assert "<circle" in alone and "nan" not in alone


def test_long_lines_are_averaged_not_cut():
    n = 8_000  # 400 blocks of 20
    chart = line_chart([Series(label="a", x=range(n), y=[1.0, 3.0] * (n // 2))], title="t")
    (points,) = re.findall(r"<polyline[^>]*points='([^']*)'", chart)
    rows = {point.split(",")[1] for point in points.split()}
    assert len(points.split()) <= 400 and len(rows) == 1  # every block has the mean 2


def test_ticks_are_round_and_inside():
    assert ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3.0, 12.0, 3) == [0.0, 5.0, 10.0]
    assert log_ticks(0.05, 20.0, 4) == pytest.approx([0.1, 1.0, 10.0])
    assert all(0.4 <= tick <= 0.6 for tick in log_ticks(0.4, 0.6, 4))


@pytest.mark.parametrize(
    "text, expected",
    [
        (figure(0.95), "0.9500"),
        (figure(12345.678), "12346"),
        (figure(2.5e-7), "2.500e-7"),
        (figure(1234567), "1&thinsp;234&thinsp;567"),
        (figure(None), "&ndash;"),
        (figure(float("nan")), "&ndash;"),
        (with_prefix(1.234e12, "FLOP"), "1.23 TFLOP"),
        (with_prefix(0.5), "0.5"),
        (with_prefix(0), "0"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(65), "1 min 5 s"),
        (seconds(7500), "2 h 5 min"),
        (seconds(None), "&ndash;"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected
