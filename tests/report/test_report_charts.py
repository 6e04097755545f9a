"""Drawings: gaps, averages, ticks, styles that differ, one style for every thread."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import pytest

from tests.tiny import REPO
from tpdiff_jax.report import pages, style
from tpdiff_jax.report.charts import Series, bar_chart, line_chart, new_figure
from tpdiff_jax.report.svg import inline_svg


def _points(chart, line="line0"):
    """Pieces of a line, each a list of (x, y)."""
    (path,) = re.findall(rf'class="{line}"><path d="([^"]*)"', chart.svg)
    pieces = [piece for piece in path.split("M") if piece]
    return [[tuple(map(float, at.split())) for at in piece.split("L")] for piece in pieces]


def _ticks(chart):
    """Texts left of the drawing, as numbers."""
    texts = re.findall(r"text-anchor: end[^>]*>([^<]*)</text>", chart.svg)
    return [float(text.replace("\u2212", "-")) for text in texts]


def test_a_chart_leaves_gaps_and_skips_what_it_cannot_draw():
    series = [Series(label="a", x=[1, 2, 3, 4, 5], y=[1, 2, None, 4, 5])]
    chart = line_chart(series, key="k", title="t")
    assert [len(piece) for piece in _points(chart)] == [2, 2]
    empty = [Series(label="a", x=[1, 2], y=[None, math.nan])]
    assert line_chart(empty, key="k", title="t") is None
    assert line_chart([], key="k", title="t") is None
    assert bar_chart(["g"], [("a", [None])], key="k", title="t") is None
    alone = line_chart([Series(label="a", x=[7], y=[0.0])], key="k", title="t", is_log=True)
    assert alone.svg.count("<use") == 2 and "nan" not in alone.svg, "a dot, and its key above"


def _dot_width(chart):
    """Width of the first line's round dot, in the drawing's pixels."""
    (path,) = re.findall(r'<path id="k-0" d="([^"]*)"', chart.svg)
    xs = [float(x) for x in re.findall(r"(-?[\d.]+) -?[\d.]+", path)]
    return max(xs) - min(xs)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("value, shown", [(0.5, "0.5000"), (1.0, "1.000"), (-2.0, "-2.000")])
def test_a_run_of_one_point_shows_a_dot_with_its_value(is_log, value, shown):
    """What a run shorter than one log period has: one line of metrics."""
    alone = Series(label="loss", x=[3], y=[value])
    chart = line_chart([alone], key="k", title="t", is_log=is_log)
    assert f">loss: {shown}</text>" in chart.svg
    assert chart.svg.count("<use") == 2, "the dot, and its key"
    assert f"<title>loss 3: {shown}</title>" in chart.svg
    assert _dot_width(chart) > 1.5 * _dot_width(
        line_chart([Series(label="loss", x=[3, 4], y=[1, 2])], key="k", title="t")
    )
    assert ">3</text>" in chart.svg and len(set(_ticks(chart))) >= 2


def test_each_stage_of_one_point_has_its_own_dot_and_value():
    series = [Series(label=f"stage {i}", x=[2], y=[0.5 + i], style=i) for i in range(3)]
    series.append(Series(label="never", x=[2], y=[None]))
    chart = line_chart(series, key="k", title="t", is_log=True)
    for text in ("stage 0: 0.5000", "stage 1: 1.500", "stage 2: 2.500"):
        assert f">{text}</text>" in chart.svg
    assert chart.svg.count("<use") == 6 and "never" not in chart.svg


def test_a_point_between_gaps_of_a_long_line_has_a_dot():
    y = [1.0] * 100
    y[50] = y[52] = None
    y[51] = 3.0
    chart = line_chart([Series(label="a", x=range(100), y=y)], key="k", title="t")
    assert re.findall(r"<title>(.*?)</title>", chart.svg) == ["a 51: 3.000"]
    assert chart.svg.count("<use") == 1


def test_long_lines_are_averaged_not_cut():
    n = 8_000  # 400 blocks of 20
    series = [Series(label="a", x=range(n), y=[1.0, 3.0] * (n // 2))]
    (points,) = _points(line_chart(series, key="k", title="t"))
    (ends,) = _points(line_chart([Series(label="a", x=[19, n - 1], y=[2, 2])], key="k", title="t"))
    assert len(points) <= 400 and len({y for _, y in points}) == 1  # every block has the mean 2
    assert (points[0][0], points[-1][0]) == (ends[0][0], ends[-1][0])


def test_dots_and_bars_tell_their_values():
    series = [Series(label="a", x=[1, 2, 3], y=[1.0, None, 0.25])]
    chart = line_chart(series, key="k", title="t")
    assert re.findall(r"<title>(.*?)</title>", chart.svg) == ["a 1: 1.000", "a 3: 0.2500"]
    chart = bar_chart(["g", "h"], [("a", [0.5, None]), ("b", [1.0, 2.0])], key="k", title="t")
    assert "a, g: 0.5000; b, g: 1.000; b, h: 2.000</desc>" in chart.svg
    for text in ("0.5000", "1.000", "2.000", "g", "h", "a", "b"):
        assert f">{text}</text>" in chart.svg


@pytest.mark.parametrize(
    "values, is_log, expected",
    [
        ([0.0, 1.0], False, [0.0, 0.5, 1.0]),
        ([-3.0, 12.0], False, [0.0, 5.0, 10.0]),
        ([0.05, 20.0], True, [0.1, 0.3, 1.0, 3.0, 10.0]),
        ([1e-3, 1e3], True, [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0]),
        ([0.25, 1.3], True, [0.3, 0.5, 1.0]),
    ],
)
def test_ticks_are_round(values, is_log, expected):
    series = [Series(label="a", x=[0, 1], y=values)]
    found = _ticks(line_chart(series, key="k", title="t", is_log=is_log))
    assert set(expected) <= {float(f"{tick:.6g}") for tick in found} and len(found) <= 9


def test_a_narrow_logarithmic_axis_still_has_ticks():
    series = [Series(label="a", x=[0, 1], y=[0.4, 0.6])]
    assert len(_ticks(line_chart(series, key="k", title="t", is_log=True))) >= 2


def test_no_two_lines_look_alike():
    looks = [style.line_style(i) for i in range(28)]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 28
    for i, one in enumerate(looks):
        for other in looks[:i]:
            if one["color"] == other["color"]:
                assert one["marker"] != other["marker"]
    assert len(set(style.LIGHT.values())) == len(style.LIGHT)
    assert list(style.LIGHT) == list(style.DARK)


# Severity 1 of Machado, Oliveira and Fernandes (2009), linear RGB.
_BLIND = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


def _linear(colour):
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lab(linear):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", _BLIND)
@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_line_colours_differ_for_colour_blind_readers(kind, theme):
    colours = [c for name, c in getattr(style, theme).items() if name[0] == "c"]
    seen = [_lab(np.array(_BLIND[kind]) @ _linear(colour)) for colour in colours]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 12


@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_text_stands_out_from_the_paper(theme):
    colours = getattr(style, theme)
    bright = {name: [0.2126, 0.7152, 0.0722] @ _linear(colour) for name, colour in colours.items()}
    for name, least in (("ink", 12.0), ("soft", 4.5), ("poor", 4.5)):
        for ground in ("paper", "panel"):
            low, high = sorted((bright[name], bright[ground]))
            assert (high + 0.05) / (low + 0.05) > least, (name, ground)


def _chart(seed):
    y = np.random.default_rng(seed).random(50).tolist()
    return line_chart([Series(label="a", x=range(50), y=y)], key=f"k{seed}", title="t").svg


def test_threads_draw_what_one_thread_draws_and_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    alone = [_chart(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(_chart, range(6))) == alone
    assert dict(matplotlib.rcParams) == before


def test_names_in_a_drawing_are_text_whatever_they_hold():
    evil = "<script>$\\frac{$</script> -->"
    series = [Series(label=evil, x=[0, 1], y=[0, 1]), Series(label="b", x=[0, 1], y=[1, 2])]
    chart = line_chart(series, key="k", title=evil)
    assert "<script" not in chart.svg
    assert "&lt;script&gt;$\\frac{$&lt;/script&gt; --&gt;</text>" in chart.svg


@pytest.mark.parametrize("key", ["", "A", 'x"', "1a", "a b"])
def test_a_key_that_could_not_be_a_name_is_refused(key):
    with pytest.raises(ValueError, match="key: .* must be lower-case letters, digits and dashes"):
        inline_svg(new_figure((10, 10)), key=key, title="t", description="d")


def test_saved_figures_repeat_to_the_byte(tmp_path):
    for name in ("a", "b"):
        with style.drawing():
            figure = new_figure((200, 100))
            figure.subplots().plot([0, 1], [0, 1], **style.line_style(3))
            style.save(figure, tmp_path / name)
    for suffix in (".svg", ".png"):
        one, other = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in "ab")
        assert one == other


def test_templates_escape_by_themselves_and_only_drawings_are_markup():
    folder = Path(pages.__file__).parent
    templates = sorted((folder / "templates").glob("*.html"))
    assert len(templates) > 5
    for path in templates:
        assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text()), path.name
    users = [path.name for path in folder.glob("*.py") if "Markup(" in path.read_text()]
    assert users == ["svg.py"]
    for part in ("tpdiff_jax", "experiments", "bench", "launch"):
        for path in (REPO / part).rglob("*.py"):
            assert "pyplot" not in path.read_text(), path


def test_a_template_that_asks_for_what_it_was_not_given_fails():
    with pytest.raises(jinja2.UndefinedError, match="has no attribute"):
        section = pages.Section("a", "A", "cost.html", {"facts": (), "table": pages.Table([], [])})
        pages.render_page(title="", heading="", subtitle="", sections=[section])
