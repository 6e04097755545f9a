"""report.html: self-contained, escaped, and complete however little the run left behind."""

import json
import re
import shutil

import pytest

from tests.report.report_files import (
    METRICS,
    PAPER,
    make_run,
    parsed,
    stages_of,
    write_config,
    write_metrics,
    write_results,
    write_samples,
)
from tpdiff_jax.report import write_report
from tpdiff_jax.report.result_sections import progress_to_ceiling
from tpdiff_jax.report.training_sections import relative, weighted_mean


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "flow")


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
    read = parsed(path)
    assert not [name for name in run_dir.iterdir() if name.name.endswith(".tmp")]
    page = path.read_text()
    assert page.count("<video") == 16 and page.count("data:image/gif;base64,") == 1
    text = " ".join(read.text)
    for name in METRICS:
        assert name.replace("_", " ") in text


def test_the_page_needs_nothing_beside_it(run_dir):
    path = write_report(run_dir)
    for address in parsed(path).addresses:
        assert address.startswith(("data:", "#")) or address == PAPER, address
    links = [attributes for tag, attributes in parsed(path).tags if PAPER in attributes.values()]
    assert links == [{"href": PAPER}]  # to be followed, not loaded
    page = re.sub(r"base64,[A-Za-z0-9+/=]*", "", path.read_text()).replace(PAPER, "")
    assert "http" not in page and "Noise schedule and stage windows" in page
    assert "@import" not in page and "<script" not in page and "NaN" not in page
    assert str(run_dir.parent) not in page  # no path of the machine that wrote it


@pytest.mark.parametrize(
    "parts, expected",
    [
        ((), []),
        ((write_metrics,), ["Metrics over training", "Training", "Throughput"]),
        ((write_config,), ["Config"]),
        ((write_samples,), ["Samples"]),
        ((write_results,), ["Results", "Stages", "Cost", "Setting"]),
        ((write_config, write_results), ["Results", "Stages", "Cost", "Setting", "Config"]),
    ],
)
def test_missing_parts_leave_their_sections_out(tmp_path, parts, expected):
    for write in parts:
        write(tmp_path)
    path = write_report(tmp_path)
    parsed(path)
    assert _titles(path) == expected


def test_a_run_without_evaluation_says_so(tmp_path):
    write_metrics(tmp_path, with_eval=False)
    assert "has not been evaluated" in write_report(tmp_path).read_text()
    write_metrics(tmp_path)
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
    parsed(path)
    assert "None" not in path.read_text()


def test_an_unreadable_file_is_named_on_the_page(tmp_path):
    (tmp_path / "results.json").write_text('{"metrics":')
    (tmp_path / "config.json").write_text("[]")
    page = write_report(tmp_path).read_text()
    assert "results.json could not be read" in page
    assert "config.json holds no JSON object" in page


EVIL = "\"'><script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}$\\frac{$"


def test_text_from_files_is_escaped(tmp_path):
    write_samples(tmp_path, num_videos=1, name="<b onclick='x'>&'")
    config = {EVIL: {EVIL: EVIL}, "data": {"name": EVIL, "caption": EVIL, "buckets": [[EVIL, 1]]}}
    config |= {"pyramid": {"frame_strides": [EVIL, 1]}, "model": {"name": EVIL}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "metrics": {EVIL: 1.0},
                "references": {"ceiling": {EVIL: 2.0}, EVIL: {EVIL: 1.0}},
                "metric_info": {EVIL: {"meaning": EVIL, "unit": EVIL, "direction": "higher"}},
                "device": {"kind": EVIL},
                "seeds": {EVIL: EVIL},
                "stages": [
                    {"num_frames": EVIL, "frame_stride": EVIL, "t_start": 1, "t_end": 0.5},
                    {"shape": [EVIL, 1, 1], "strides": [EVIL, 2, 2], "t_start": 0.5, "t_end": 0},
                ],
                "schedule": {"t": [0, 1], "gamma": [1, 0], "sigma": [0, 1]},
            }
        )
    )
    line = {"step": 1, "loss": 1.0, f"eval/{EVIL}": 1.0, "loss_stage_0": 1.0, "loss_stage_1": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    path = write_report(tmp_path)
    page = parsed(path)
    assert "<script" not in path.read_text() and "<b " not in path.read_text()
    assert "49" not in "".join(page.text)  # no template inside a text was run
    assert {tag for tag, _ in page.tags if tag == "img"} == {"img"} and EVIL in "".join(page.text)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag != "img" or attributes["src"].startswith("data:image/gif;base64,")


@pytest.mark.filterwarnings(
    "ignore:Glyph"
)  # the font of the layout lacks them, the page's need not
def test_control_characters_and_foreign_scripts_do_not_stop_a_report(tmp_path):
    odd = "a\u0000\u001b\ud800 \u6570\u5b57 --> ]]> $x"
    rows = [{"shape": [odd, 1, 1], "strides": [1, 1, 1], "t_start": 1, "t_end": 0}]
    schedule = {"t": [0, 1], "gamma": [1, 0], "sigma": [0, 1]}
    results = {"stages": rows, "schedule": schedule, "metrics": {odd: 1.0}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, f"eval/{odd}": 1.0}) + "\n")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "\u6570\u5b57 --&gt; ]]&gt; $x" in page


def test_equal_runs_give_equal_pages(run_dir, tmp_path):
    copy = tmp_path / "elsewhere" / run_dir.name
    shutil.copytree(run_dir, copy)
    assert write_report(copy).read_bytes() == write_report(run_dir).read_bytes()


def test_names_on_the_page_are_unique_and_all_that_is_pointed_to_exists(run_dir):
    page = parsed(write_report(run_dir))
    assert len(page.ids) == len(set(page.ids)) > 20
    assert set(page.references) <= set(page.ids)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 18
    for attributes in drawings:
        assert attributes["role"] == "img" and attributes["aria-label"]
        assert attributes["aria-describedby"] in page.ids


def test_drawings_take_every_colour_from_the_page(run_dir):
    page = write_report(run_dir).read_text()
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", drawings) and "font-family" not in drawings
    used = set(re.findall(r"var\((--\w+)\)", drawings))
    light, dark, *_ = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    for names in (light, dark):
        assert used and used <= set(re.findall(r"(--\w+):", names))


def test_a_report_without_its_media_stays_small(run_dir):
    page = re.sub(r"base64,[A-Za-z0-9+/=]*", "", write_report(run_dir).read_text())
    assert len(page.encode()) < 100_000


@pytest.mark.parametrize(
    "strides, shown",
    [
        ([[4, 2, 2], [1, 1, 1]], ["4 x 2 x 2", "1 x 1 x 1"]),
        ([[4, 1, 1], [1, 1, 1]], ["4", "1"]),
    ],
)
def test_stages_have_their_strides_and_shapes(tmp_path, strides, shown):
    shapes = [[4, 32 // strides[0][1], 32 // strides[0][2]], [16, 32, 32]]
    stages = stages_of(shapes=shapes, strides=strides)
    (tmp_path / "results.json").write_text(json.dumps({"stages": stages}))
    page = write_report(tmp_path).read_text()
    rows = re.findall(r"<tr><th scope=\"row\"><span.*?</tr>", page, re.DOTALL)
    for row, stride, shape in zip(rows, shown, shapes, strict=True):
        cells = re.findall(r"<td>(.*?)</td>", row)
        assert cells[:2] == [stride, " x ".join(map(str, shape))]


def test_the_subtitle_names_the_strides_of_newer_and_older_configs(tmp_path):
    for pyramid, expected in (
        ({"frame_strides": [4, 2, 1]}, "temporal pyramid 4-2-1"),
        ({"frame_strides": [], "strides": [4, 2, 1]}, "temporal pyramid 4-2-1"),
        ({"frame_strides": [2, 1], "strides": [4, 2, 1]}, "temporal pyramid 2-1"),
        ({"strides": [[4, 2, 2], 1]}, "temporal pyramid 4 x 2 x 2, 1 x 1 x 1"),
        ({"strides": [1]}, "vanilla"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"pyramid": pyramid}))
        page = write_report(tmp_path).read_text()
        assert f'<p class="subtitle">{expected}</p>' in page


def test_a_missing_workdir_is_refused(tmp_path):
    with pytest.raises(ValueError, match="workdir: .* is not a directory"):
        write_report(tmp_path / "missing")


def test_periodic_samples_in_subfolders_are_not_the_final_ones(tmp_path):
    write_samples(tmp_path, num_videos=2)
    write_samples(tmp_path / "samples" / "step_100", num_videos=3)
    assert write_report(tmp_path).read_text().count("<video") == 2


def test_a_run_that_shows_prompts_has_its_grids_of_every_step_in_order(tmp_path):
    """Without prompts there are none; folders of --mode=sample are not training's."""
    write_samples(tmp_path, num_videos=2)
    for name in ("step_00000200", "step_00001000", "step_00001000_seed_7", "step_x"):
        grid = tmp_path / "samples" / name / "grid.gif"
        grid.parent.mkdir()
        grid.write_bytes((tmp_path / "samples" / "grid.gif").read_bytes())
    for config, steps in (
        ({}, []),
        ({"sample": {"prompts": ""}}, []),
        ({"sample": {"prompts": "prompts.txt"}}, ["200", "1000"]),
        ({"sample": "no group"}, []),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        page = write_report(tmp_path).read_text()
        assert re.findall(r"<figcaption>step (\d+)</figcaption>", page) == steps
        assert page.count("<video") == 2


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


@pytest.mark.parametrize(
    "value, direction, shown",
    [
        (8.0, "match", "700 % off"),  # 7 away from 1
        (-0.5, "higher", "150 % off"),
        (1.5, "match", "50 %"),
        (0.6, "higher", "60 %"),
    ],
)
def test_a_figure_without_floors_is_no_negative_share_of_real(tmp_path, value, direction, shown):
    info = {"meaning": "m", "unit": "", "direction": direction}
    results = {"metrics": {"x": value}, "metric_info": {"x": info}}
    results["references"] = {"ceiling": {"x": 1.0}, "frozen": {"x": 1.0}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = write_report(tmp_path).read_text()
    (cell,) = re.findall(r">\s*(-?[0-9]+ %(?: off)?)\s*<", page)
    assert cell == shown


def test_long_words_do_not_leave_their_boxes(run_dir):
    """Names of runs, captions and paths may have no space to break at."""
    (body,) = re.findall(r"\nbody \{(.*?)\}", write_report(run_dir).read_text(), re.S)
    assert "overflow-wrap: break-word;" in body


def test_the_report_says_where_the_time_went(run_dir):
    page = write_report(run_dir).read_text()
    section = page[page.index('id="time"') :]
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


def test_captions_and_notes_on_the_evaluation_stand_at_the_head(tmp_path):
    workdir = make_run(tmp_path / "run")
    results = json.loads((workdir / "results.json").read_text())
    results["data"] = {"train_clips": 29, "test_clips": 1, "captions": "28 of 30 clips"}
    results["notes"] = ["generated videos are compared with TRAINING clips", "12 clips are too few"]
    (workdir / "results.json").write_text(json.dumps(results))
    page = write_report(workdir).read_text()
    head, _, rest = page.partition("<h2>")
    assert "28 of 30 clips" in head and "captions" in head
    for note in results["notes"]:
        assert f"Evaluation: {note}." in head
    assert "Data" in rest and "29" in rest
