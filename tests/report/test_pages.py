"""What every page promises its readers, on any screen and to any ear, as far as its text tells.

The pages: a run's report, that of a run whose every name is long, a plan, and the convergence
experiment. What only a browser shows (overflow, focus, axe) is in `browser_check.mjs` here.
"""

import base64
import io
import json
import math
import re
import shutil

import pytest
from PIL import Image

from experiments.convergence import SHOWN
from experiments.pages.convergence_page import html_page
from experiments.pages.figures import draw_speedups
from tests.report.page_tree import page_tree
from tests.report.report_files import PAPER, make_run
from tests.report.test_plan_page import PLAN, STAGE
from tests.tiny import REPO
from tpdiff_jax.files import media
from tpdiff_jax.report import pages, write_report
from tpdiff_jax.report.charts import TWO_COLUMNS, WIDE, Series, line_chart
from tpdiff_jax.report.plan_page import render_plan

ORIGIN = {
    "command": "python -m tpdiff_jax.main --config=configs/flow.py --workdir='my runs/a'",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "versions": {"python": "3.11.7", "jax": "0.10.2", "libtpu": None},
    "device": {"num_devices": 4, "kind": "TPU v5 lite", "cpu_cores": 1, "machine": "x86_64"},
}
LONG = "word" * 60
_TEXT_SIZE = r"font(?:-size)?: (?:\d+ )?([\d.]+)px"
PHONE = 358  # 390 less the page's margins
KINDS = ("report", "long", "plan", "convergence")


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and one with long names that shows its prompts on the way."""
    folder = tmp_path_factory.mktemp("runs")
    plain = make_run(folder / "flow")
    change(plain / "results.json", **ORIGIN)
    long = shutil.copytree(plain, folder / LONG)
    results = {"metrics": {LONG: 1.0}, "data": {"captions": LONG}, "notes": [LONG]}
    change(long / "results.json", **results, command=LONG, commit=LONG)
    change(long / "config.json", sample={"prompts": "p.txt", LONG: LONG}, data={"name": LONG})
    (long / "samples" / "0000_label_7.mp4").rename(long / "samples" / f"0000_{LONG[:200]}.mp4")
    for step in (100, 2000):
        (long / "samples" / f"step_{step:08d}").mkdir()
        shutil.copy(long / "samples" / "grid.gif", long / "samples" / f"step_{step:08d}")
    return {"report": plain, "long": long}


@pytest.fixture(scope="module")
def texts(runs, tmp_path_factory):
    found = {kind: write_report(workdir).read_text() for kind, workdir in runs.items()}
    stages = [{**STAGE, "name": f"train stage {i}", "frame_stride": 4 - i} for i in range(3)]
    plan = {**PLAN, "stages": stages, **ORIGIN, "config": {"data": {"name": "a"}, "b": 1}}
    found["plan"] = render_plan({**plan, "device": None})
    summary = json.loads((REPO / "docs" / "results" / "convergence.json").read_text())
    rows = {}
    for row in summary["speedups"]:
        key = {name: row[name] for name in ("arm", "metric", "axis")}
        drawn = rows.setdefault(tuple(key.values()), {**key, "points": []})
        if row["ratio"]:
            drawn["points"].append({k: row[k] for k in ("share", "ratio", "low", "high")})
    path = tmp_path_factory.mktemp("figures") / "speedups"
    figures = {"Speed-ups": draw_speedups(path, list(rows.values()), ["frechet"])}
    found["convergence"] = html_page({**summary, **ORIGIN}, SHOWN, figures)
    return found


@pytest.fixture(scope="module")
def trees(texts):
    return {kind: page_tree(text) for kind, text in texts.items()}


# ---- structure


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_language_title_viewport_one_h1_and_headings_in_order(kind, texts, trees):
    tree = trees[kind]
    assert texts[kind].startswith("<!doctype html>\n<html lang=")
    (html,), (head,) = tree.all("html"), tree.all("head")
    (title,) = head.all("title")
    assert html["lang"] == "en" and title.text
    metas = {e["name"]: e["content"] for e in tree.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"  # nothing forbids zooming
    levels = [int(e.tag[1]) for e in tree.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), levels
    assert [e.tag for e in tree.all("header", "nav", "main", "footer")] == [
        *("header", "nav", "main", "footer")
    ]
    assert [e["aria-label"] for e in tree.all("nav")] == ["Sections"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_unique_and_nothing_is_loaded_from_elsewhere(kind, texts, trees):
    elements = list(trees[kind].all())
    ids = [e["id"] for e in elements if e["id"]]
    assert len(ids) == len(set(ids)) > 4
    pointed = [e["href"][1:] for e in elements if e["href"].startswith("#")]
    pointed += [e["aria-describedby"] for e in elements if e["aria-describedby"]]
    assert pointed and set(pointed) <= set(ids)
    for element in elements:
        loaded = [element[name] for name in ("src", "srcset", "poster", "data", "action")]
        if element.tag != "a":
            loaded.append(element["href"])
        assert all(address.startswith(("data:", "#")) for address in loaded if address)
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in element.attributes if name.startswith("on")]
    assert [e["href"] for e in elements if e["href"].startswith("http")] == [PAPER]
    css = "".join(e.text for e in trees[kind].all("style"))
    assert "url(" not in css and "@import" not in css and "http" not in css


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_tells_command_commit_versions_device_and_paper(kind, trees):
    (header,) = trees[kind].all("header")
    text = header.text
    if kind == "long":
        assert text.count(LONG) >= 4
        return
    assert ORIGIN["command"] in text and ORIGIN["commit"] in text
    assert "python 3.11.7, jax 0.10.2" in text and "libtpu" not in text
    assert ("4 TPU v5 lite, 1 CPU core, x86_64" in text) == (kind != "plan")
    (link,) = header.all("a")
    assert link["href"] == PAPER and "arXiv 2503.09566" in link.text


@pytest.mark.parametrize("odd", [3, [], {}, "", None, {"kind": []}, [{"a": 1}]])
def test_odd_or_missing_origins_do_not_stop_a_page(odd, tmp_path):
    fields = dict.fromkeys(ORIGIN, odd)
    (tmp_path / "results.json").write_text(json.dumps(fields))
    page = write_report(tmp_path).read_text()
    assert PAPER in page and ("<dt>command</dt>" in page) == bool(odd)


# ---- pictures


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_pictures_and_players_have_names(kind, trees):
    tree = trees[kind]
    drawings = list(tree.all("svg"))
    assert drawings
    for drawing in drawings:
        assert drawing["role"] == "img" and drawing["aria-label"].strip()
        (about,) = drawing.all("desc")
        assert about["id"] == drawing["aria-describedby"] and about.text
        assert any(e.tag == "figure" and list(e.all("figcaption")) for e in drawing.above())
    for picture in tree.all("img"):
        assert picture["alt"].strip() and int(picture["width"]) and int(picture["height"])
    labels = [player["aria-label"] for player in tree.all("video")]
    assert all(labels) and len(labels) == len(set(labels))


@pytest.mark.parametrize("kind", ["report", "long"])
def test_nothing_moves_for_readers_who_ask_for_that(kind, trees):
    """Players wait for a click; the one that moves by itself is chosen by a media query."""
    players = list(trees[kind].all("video"))
    assert len(players) == 16
    for player in players:
        assert "controls" in player.attributes and "autoplay" not in player.attributes
    pictures = list(trees[kind].all("picture"))
    assert len(pictures) == {"report": 1, "long": 3}[kind]
    for picture in pictures:
        (source,), (still,) = picture.all("source"), picture.all("img")
        assert source["media"] == "(prefers-reduced-motion: no-preference)"
        shown = {e.tag: _opened(e["srcset"] or e["src"]) for e in (source, still)}
        assert (shown["source"].format, shown["source"].n_frames) == ("WEBP", 16)
        assert shown["img"].n_frames == 1
        sizes = {opened.size for opened in shown.values()}
        assert sizes == {(int(still["width"]), int(still["height"]))}
    css = "".join(e.text for e in trees[kind].all("style"))
    assert "animation" not in css and "transition" not in css
    assert css.count("smooth") == 1
    assert "(prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; }" in css


def _opened(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_first_frame_is_the_still_and_frames_keep_their_order(runs, trees):
    (picture,) = trees["report"].all("picture")
    (source,), (still,) = picture.all("source"), picture.all("img")
    moving = _opened(source["srcset"])
    with Image.open(runs["report"] / "samples" / "grid.gif") as original:
        for i in (0, 7, 15):
            original.seek(i), moving.seek(i)
            assert _difference(original, moving) < 6
            assert _difference(original, _opened(still["src"])) < 9 or i > 0
        moving.seek(0)
        original.seek(15)
        assert _difference(original, moving) > 12, "frames differ more than the coder changes them"


def _difference(one, other):
    """Root of the mean squared difference of grey values, 0 to 255."""
    pixels = [list(picture.convert("L").tobytes()) for picture in (one, other)]
    squares = [(a - b) ** 2 for a, b in zip(*pixels, strict=True)]
    return math.sqrt(sum(squares) / len(squares))


@pytest.mark.parametrize("kind", ["report", "long"])
def test_the_grid_does_not_double_a_page(kind, runs, tmp_path):
    """A GIF would take more room than all players together; its pictures here take far less."""
    workdir = shutil.copytree(runs[kind], tmp_path / "run")
    whole = write_report(workdir).stat().st_size
    gifs = list((workdir / "samples").rglob("*.gif"))
    encoded = sum(4 * path.stat().st_size / 3 for path in gifs)
    for path in gifs:
        path.unlink()
    assert 0 < whole - write_report(workdir).stat().st_size < 0.5 * encoded


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture", "half", "header", "png"])
def test_a_grid_that_is_no_whole_picture_is_named(content, runs, tmp_path):
    workdir = shutil.copytree(runs["long"], tmp_path / "run")
    for path in (workdir / "samples").rglob("*.gif"):
        whole = path.read_bytes()
        png = io.BytesIO()
        Image.new("L", (4, 4)).save(png, "PNG")
        cut = {"half": whole[: len(whole) // 2], "header": whole[:800], "png": png.getvalue()}
        path.write_bytes(cut.get(content, content))
    page = write_report(workdir).read_text()
    assert "<picture>" not in page and page.count("<video") == 16
    for name in ("grid.gif", "step_00000100/grid.gif", "step_00002000/grid.gif"):
        assert f"samples/{name} could not be read." in page


def test_colour_grids_and_grids_of_one_frame_are_shown(tmp_path):
    import numpy as np

    for frames, channels in ((1, 1), (1, 3), (5, 3)):
        videos = np.random.default_rng(0).integers(0, 255, (3, frames, 8, 8, channels), np.uint8)
        media.write_gif_grid(tmp_path / "samples" / "grid.gif", videos)
        tree = page_tree(write_report(tmp_path).read_text())
        (source,) = tree.all("source")
        assert getattr(_opened(source["srcset"]), "n_frames", 1) == frames


# ---- tables


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_captions_and_scoped_headers_and_scroll_in_named_boxes(kind, trees):
    tables = list(trees[kind].all("table"))
    captions = [caption.text for table in tables for caption in table.all("caption")]
    assert len(captions) == len(tables) == len(set(captions)) > 2 and all(captions)
    for table in tables:
        rows = list(table.all("tr"))
        head = [e for e in table.all("thead") for e in e.all("th")]
        assert all(e["scope"] == "col" and e.text for e in head)
        for row in rows[1:] if head else rows:
            cells = list(row.all("th", "td"))
            assert cells[0].tag == "th" and cells[0]["scope"] == "row"
            assert {e.tag for e in cells[1:]} == {"td"}
            assert not head or len(cells) == len(head)
        if head:  # those without a head have two columns, whose texts break anywhere
            _check_scrolls(table.parent, "scroll")
        else:
            assert table["class"] == "pairs"


def _check_scrolls(box, name):
    """Keyboards reach a box that moves sideways, and its name is told."""
    assert name in box["class"].split() and box["tabindex"] == "0"
    assert box["role"] == "group" and box["aria-label"].strip()


def test_columns_of_words_are_read_from_the_left_and_figures_from_the_right():
    rows = [["a", "word", "1", "-3.5", "<2", "4 x 4", "-"], ["b", "-", "x", "-", "-", "-", "-"]]
    table = pages.Table(["name", *"abcdef"], rows, "caption")
    assert table.text_columns == [0, 1, 6]
    assert pages.Table(["name"], []).text_columns == []
    assert pages.Table(["name"], []).name_letters == 0
    assert pages.Table(["name"], [["abc"], ["abcde"]]).name_letters == 5
    assert pages.Table(["name"], [["a" * 99]]).name_letters == 16


# ---- sizes and colours


@pytest.mark.parametrize("kind", KINDS)
def test_texts_in_drawings_have_eleven_pixels_on_a_phone(kind, trees):
    for drawing in trees[kind].all("svg"):
        width = float(drawing["viewbox"].split()[2])
        sizes = [float(size) for size in re.findall(_TEXT_SIZE, _styles(drawing))]
        least = min(sizes)
        assert len(sizes) == len(list(drawing.all("text"))) > 2
        kept = re.search(r"min-width: (\d+)px", drawing["style"])
        shown = max(PHONE, float(kept[1]) if kept else 0.0)
        assert least * shown / width >= 11.0, drawing["aria-label"]
        if shown > PHONE:
            _check_scrolls(drawing.parent, "drawing")


def _styles(drawing):
    return " ".join(e["style"] for e in drawing.all("text"))


@pytest.mark.parametrize("size", [TWO_COLUMNS, WIDE, (340.0, 220.0)])
def test_a_drawing_of_any_size_keeps_its_texts_legible(size):
    series = [Series(label=str(i), x=[0, 1e6], y=[1e-9, i + 1]) for i in range(5)]
    chart = line_chart(series, key="k", title="t", size=size, is_log=True)
    kept = re.search(r"min-width: (\d+)px", chart.svg)
    assert (kept is not None) == chart.scrolls == (size[0] > PHONE)
    shown = float(kept[1]) if kept else PHONE
    sizes = [float(text) for text in re.findall(_TEXT_SIZE, chart.svg)]
    assert min(sizes) * shown / size[0] >= 11.0


def test_texts_of_the_page_have_eleven_pixels(trees):
    css = "".join(e.text for e in trees["report"].all("style"))
    rems = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)rem", css)]
    assert len(rems) > 8 and 16 * min(rems) >= 11
    (ems,) = {float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)em", css)}
    assert 16 * min(rems) * ems >= 11


def _brightness(colour):
    srgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one, other):
    low, high = sorted((_brightness(one), _brightness(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag_level_aa_in_light_dark_and_print(texts):
    """4.5 for text; 3 for lines, bars and gauges (WCAG 2.2, 1.4.3 and 1.4.11)."""
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    schemes = re.findall(r":root \{(.*?)\}", texts["report"], re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in schemes)
    assert printed == light and light.keys() == dark.keys()
    for colours in (light, dark):
        for ground in ("paper", "panel"):
            for name in ("ink", "soft", "link", "poor"):
                assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("good", "fair", "poor", *(name for name in colours if name[0] == "c")):
            assert _contrast(colours[name], colours["paper"]) >= 3.0, name


def test_a_legend_is_read_row_by_row():
    names = [f"line number {i}" for i in range(5)]
    series = [Series(label=name, x=[0, 1], y=[0, i + 1]) for i, name in enumerate(names)]
    drawn = page_tree(line_chart(series, key="k", title="t").svg)
    places = {}
    for text in drawn.all("text"):
        if text.text in names:
            places[text.text] = (float(text["y"]), float(text["x"]))
    assert sorted(places, key=places.get) == names
    assert len({y for y, _ in places.values()}) > 1 < len({x for _, x in places.values()})


def test_paper_shows_what_a_screen_hides(trees):
    css = "".join(e.text for e in trees["report"].all("style"))
    _, _, rules = css.rpartition("@media print {")
    for rule in (
        "nav { display: none; }",
        "break-inside: avoid",
        "overflow: visible",
        "details::details-content { display: block; content-visibility: visible; }",
    ):
        assert rule in rules  # fmt: skip


def test_a_plan_draws_memory_and_times_of_a_few_programs_only():
    def drawings(number, **fields):
        stages = [{**STAGE, "name": f"stage {i}", **fields} for i in range(number)]
        return [
            e["aria-label"] for e in page_tree(render_plan({**PLAN, "stages": stages})).all("svg")
        ]

    memory = "Peak over the memory of one device"
    times = "Least time of a training step by what it needs"
    assert drawings(3) == [memory, times]
    assert drawings(9) == []
    assert drawings(2, roofline=None) == [memory]
    assert drawings(2, memory_share=None) == [times]
    assert 'id="config"' not in render_plan(PLAN)


def test_a_plan_without_a_sampler_is_shown():
    tree = page_tree(render_plan({**PLAN, "sampler": None}))
    names = {row.children[0].text for row in tree.all("tr") if row.children[0].tag == "th"}
    assert "train stage 0" in names and "sampler <b>" not in names
