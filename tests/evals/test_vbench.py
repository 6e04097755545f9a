"""VBench's names, command and totals, with figures worked out by hand."""

import json

import pytest

from tpdiff_jax.evals import vbench

INFO = [
    {"prompt_en": "a cat", "dimension": ["object_class"]},
    {"prompt_en": "a cat", "dimension": ["motion_smoothness", "dynamic_degree"]},
    {"prompt_en": "a vase and scissors", "dimension": ["multiple_objects"]},
    {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
]


@pytest.fixture
def info(tmp_path):
    path = tmp_path / "VBench_full_info.json"
    path.write_text(json.dumps(INFO))
    return path


def test_each_prompt_comes_once_with_all_its_dimensions(info):
    prompts = vbench.read_vbench_prompts(info)
    assert [prompt.text for prompt in prompts] == [
        *("a cat", "a vase and scissors", "In a still frame, a stop sign")
    ]
    assert prompts[0].dimensions == {"object_class", "motion_smoothness", "dynamic_degree"}
    assert [p.text for p in vbench.read_vbench_prompts(info, ["multiple_objects"])] == [
        "a vase and scissors"
    ]


def test_missing_videos_are_named_and_the_command_is_printed(info, tmp_path, capsys):
    videos = tmp_path / "my videos"
    videos.mkdir()
    for index in range(5):
        (videos / f"a cat-{index}.mp4").touch()
    flags = [f"--info={info}", f"--videos={videos}"]
    assert vbench.main(["check", *flags, "--dimensions=object_class"]) == 0
    line = capsys.readouterr().out.strip()
    assert f"'--videos_path={videos}'" in line and line.endswith("--dimension=object_class")
    (videos / "a cat-3.mp4").unlink()
    assert vbench.main(["check", *flags, "--dimensions=object_class"]) == 1
    assert "missing: a cat-3.mp4" in capsys.readouterr().out
    assert vbench.main(["check", *flags]) == 1
    assert "11 videos are missing" in capsys.readouterr().out


@pytest.mark.parametrize("videos", [".", "../videos", "..//videos/x/.."])
def test_scores_go_beside_the_folder_however_it_is_named(
    videos, info, tmp_path, capsys, monkeypatch
):
    (tmp_path / "videos" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "videos")
    assert vbench.main(["check", f"--info={info}", f"--videos={videos}"]) == 1
    assert f"--output_path={tmp_path / 'videos_scores'} " in capsys.readouterr().out


def test_prompts_are_written_one_a_line(info, tmp_path):
    out = tmp_path / "prompts.txt"
    assert vbench.main(["prompts", f"--info={info}", f"--out={out}"]) == 0
    assert out.read_text().splitlines() == [
        prompt.text for prompt in vbench.read_vbench_prompts(info)
    ]


def test_totals_follow_the_published_formula():
    """All raw scores at their bounds give 0 and 1; one dimension counts with its weight."""
    every = {**vbench.QUALITY, **vbench.SEMANTIC}
    assert len(every) == 16 and sum(d.weight for d in vbench.QUALITY.values()) == 6.5
    low = {name: d.low for name, d in every.items()}
    high = {name: d.high for name, d in every.items()}
    assert vbench.totals(low) == pytest.approx({"quality": 0, "semantic": 0, "total": 0})
    assert vbench.totals(high) == pytest.approx({"quality": 1, "semantic": 1, "total": 1})
    # (0.9975 - 0.706 / 2 - 0.9975 / 2) ... half way in one dimension of weight 1 of 6.5.
    half = {**low, "motion_smoothness": (0.706 + 0.9975) / 2}
    assert vbench.totals(half)["total"] == pytest.approx(0.8 * 0.5 / 6.5)
    moving = {**low, "dynamic_degree": 1.0}
    assert vbench.totals(moving)["quality"] == pytest.approx(0.5 / 6.5)
    assert vbench.totals({**low, "color": 0.9})["total"] == pytest.approx(0.2 * 0.9 / 9)


def test_results_become_the_paper_s_table(tmp_path, capsys):
    every = {**vbench.QUALITY, **vbench.SEMANTIC}
    names = list(every)
    first, second = tmp_path / "a_eval_results.json", tmp_path / "b_eval_results.json"
    first.write_text(json.dumps({name: [every[name].high, []] for name in names[:7]}))
    second.write_text(json.dumps({name: [every[name].low, []] for name in names[7:]}))
    assert vbench.main(["table", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| total | motion smoothness | object class | multiple objects |")
    assert lines[2] == "| 80.00 | 99.75 | 0.00 | 0.00 | 0.00 | 100.00 | 0.00 |"
    assert lines[-1] == "quality 100.00, semantic 0.00"
    assert vbench.main(["table", str(first)]) == 0
    out = capsys.readouterr().out
    assert "| - | 99.75 |" in out and "No total: not scored in object_class" in out


@pytest.mark.parametrize(
    "content, told",
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"beauty": [0.5, []]}', "beauty is no dimension"),
        ('{"color": [50.0, []]}', "color is 50.0; allowed: a number from 0 to 1"),
        ('{"color": [true, []]}', "color is True"),
    ],
)
def test_bad_results_are_one_line(content, told, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(content)
    assert vbench.main(["table", str(path)]) == 2
    assert told in capsys.readouterr().err


def test_files_that_disagree_are_refused(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, score in zip(paths, (0.5, 0.6), strict=True):
        path.write_text(json.dumps({"color": [score, []]}))
    with pytest.raises(ValueError, match="color is 0.6, another file says 0.5"):
        vbench.read_scores(paths)


@pytest.mark.parametrize(
    "entry, told",
    [
        ({"prompt_en": "a/b", "dimension": ["color"]}, "cannot be part of a file's name"),
        ({"prompt_en": "a\nb", "dimension": ["color"]}, "cannot be part of a file's name"),
        ({"dimension": ["color"]}, "must have prompt_en and dimension"),
        ("a", "must have prompt_en and dimension"),
    ],
)
def test_bad_prompt_lists_are_refused(entry, told, tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match=told):
        vbench.read_vbench_prompts(path)
    with pytest.raises(ValueError, match="--dimensions: no beauty; there are subject_consistency"):
        vbench.read_vbench_prompts(path, ["beauty"])
