"""`tpdiff_jax.open_run`: the same videos as `--mode=sample` writes, from three lines of Python."""

import pathlib
import subprocess
import sys
from typing import Any

import av
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import tpdiff_jax
from tests.tiny import REPO, tiny_config
from tpdiff_jax import method
from tpdiff_jax.devices.compilation_cache import machine_name
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.files.media import to_uint8
from tpdiff_jax.generation.from_checkpoint import GenerateFlags
from tpdiff_jax.generation.from_checkpoint import open_run as open_checkpoint
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.python_api import SamplingRun
from tpdiff_jax.generation.requested_videos import request_videos
from tpdiff_jax.sample import sample_run
from tpdiff_jax.train import train


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(train__num_steps=2, train__checkpoint_every_steps=1)
    train(build_experiment(config), folder)
    return folder


@pytest.fixture(scope="module")
def opened(workdir: pathlib.Path) -> SamplingRun:
    return tpdiff_jax.open_run(workdir)


def test_three_lines_give_the_videos_that_the_command_writes(
    workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run = tpdiff_jax.open_run(workdir)
    videos = run.sample(labels=[3, 1, 4], seed=5)
    run.save(videos, tmp_path / "clips")

    assert (videos.dtype, videos.shape) == (np.uint8, (3, 8, 32, 32, 1))
    opened = open_checkpoint(workdir)
    asked = request_videos(opened, SampleFlags(labels=("3", "1", "4")), num_videos=None, seed=5)
    (batch,) = (made for made, _ in asked.batches())
    np.testing.assert_array_equal(videos, to_uint8(batch))
    assert run.step == 2 and run.fps == opened.experiment.dataset.fps
    assert (tmp_path / "clips" / "grid.gif").is_file()
    (first, *others) = sorted((tmp_path / "clips").glob("*.mp4"))
    assert len(others) == 2
    with av.open(str(first)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == 8
    shown = np.stack(frames)[:, 4::8, 4::8].astype(float)  # enlarged eight times
    assert np.abs(shown - videos[0, ..., 0]).mean() < 4.0


@pytest.mark.parametrize(("labels", "number"), [(["3", "1", "4"], None), ([], 2), (["7"], 3)])
def test_saved_videos_have_the_names_that_the_command_gives_them(
    workdir: pathlib.Path, tmp_path: pathlib.Path, labels: list[str], number: int | None
) -> None:
    run = tpdiff_jax.open_run(workdir)
    other = run.sample(labels=[0], seed=5)
    videos = run.sample(labels=labels, num_videos=number, seed=5)
    run.save(videos, tmp_path / "saved")
    flags = GenerateFlags(seed=5, num_videos=number)
    opened = open_checkpoint(workdir, overrides=flags)
    sample_run(opened, SampleFlags(labels=tuple(labels)), tmp_path / "command")

    def contents(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    assert contents("saved") == contents("command")
    if labels == ["3", "1", "4"]:
        names = {"0000_label_3.mp4", "0001_label_1.mp4", "0002_label_4.mp4", "grid.gif"}
        assert set(contents("saved")) == names
    run.save(videos[:1], tmp_path / "part")
    assert set(contents("part")) == {"0000.mp4", "grid.gif"}, "nobody says what it shows"
    run.save(videos[:1], tmp_path / "named", captions=["A cat, twice"])
    assert set(contents("named")) == {"0000_a_cat_twice.mp4", "grid.gif"}
    run.save(other, tmp_path / "other")
    assert set(contents("other")) == {"0000_label_0.mp4", "grid.gif"}
    with pytest.raises(ValueError, match="captions has 2 entries for 1 videos"):
        run.save(other, tmp_path / "never", captions=["a", "b"])
    assert not (tmp_path / "never").exists()


def test_seeds_steps_and_numbers_are_arguments(workdir: pathlib.Path) -> None:
    run = tpdiff_jax.open_run(workdir, step=1, guidance_scale=2, steps_per_stage=(1, 1, 1))
    assert run.step == 1
    videos = run.sample(labels=["7"], num_videos=3, seed=1)
    assert videos.shape[0] == 3
    np.testing.assert_array_equal(videos, run.sample(labels=[7, 7, 7], seed=1))
    assert (videos != run.sample(labels=[7, 7, 7], seed=2)).any()


def test_sampling_again_traces_nothing_again(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is as quick as the command's second batch; a pyramid has a program of its own."""
    real, traced = method.sample, list[tuple[int, ...]]()

    def sample(predict: Any, pyramid: method.Pyramid, spec: Any, *rest: Any) -> jax.Array:
        traced.append(spec.steps_per_stage)
        return real(predict, pyramid, spec, *rest)

    monkeypatch.setattr(method, "sample", sample)
    run = tpdiff_jax.open_run(workdir)
    run.sample(labels=[3], seed=1)
    run.sample(labels=[1, 4], seed=2)
    assert traced == [(1, 1, 1)]
    asked: list[Any] = ["steps_per_stage=(1,2,1)", {"steps_per_stage": [1, 2, 1]}]
    videos = [run.sample(labels=[3], seed=1, pyramid=pyramid) for pyramid in asked]
    np.testing.assert_array_equal(*videos)
    run.sample(labels=[3])
    assert traced == [(1, 1, 1), (1, 2, 1)]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"captions": "digit 3"}, "captions is 'digit 3'; allowed: a list of texts"),
        ({"labels": "31"}, "labels is '31'; allowed: a list with one entry a video"),
        ({"labels": 3}, "labels is 3; allowed: a list with one entry a video"),
        ({"seed": 2**32}, r"seed is 4294967296; allowed: \[0, 4294967295\]"),
        ({"seed": 2**70}, r"seed is 1180591620717411303424; allowed: \[0, 4294967295\]"),
        ({"seed": -1}, "seed is -1; allowed: whole numbers from 0"),
        ({"seed": 1.0}, "seed is 1.0; allowed: whole numbers from 0"),
        ({"num_videos": 0}, "num_videos is 0; allowed: whole numbers from 1"),
        ({"num_videos": -1}, "num_videos is -1; allowed: whole numbers from 1"),
        ({"num_videos": 2.0}, "num_videos is 2.0; allowed: whole numbers from 1"),
    ],
)
def test_arguments_that_would_mean_something_else_are_refused(
    asked: dict[str, Any], told: str, workdir: pathlib.Path, opened: SamplingRun
) -> None:
    with pytest.raises(ValueError, match=f"^{told}$"):
        opened.sample(**asked)
    if "seed" in asked or "num_videos" in asked:
        with pytest.raises(ValueError, match=f"^{told}$"):
            tpdiff_jax.open_run(workdir, **asked)


@pytest.mark.parametrize(
    ("given", "scales"),
    [
        ("1,2,3", (1, 2, 3)),
        ("3", (3, 3, 3)),
        (np.float32(3), (3, 3, 3)),
        (np.array([1, 2, 3]), (1, 2, 3)),
    ],
)
def test_numbers_are_taken_as_the_flag_takes_them(
    given: Any, scales: tuple[float, ...], workdir: pathlib.Path
) -> None:
    run = tpdiff_jax.open_run(workdir, guidance_scale=given, num_videos=np.int64(2), seed=3)
    assert run.opened.experiment.sampler.guidance_scale == scales
    assert run.opened.experiment.sample.num_videos == 2


@pytest.mark.parametrize(
    "videos",
    [np.zeros((1, 2, 8, 8, 1)), np.zeros((2, 8, 8, 1), np.uint8), np.zeros((0, 2, 8, 8, 1), "u1")],
)
def test_arrays_that_sample_does_not_return_are_not_saved(
    videos: np.ndarray, opened: SamplingRun, tmp_path: pathlib.Path
) -> None:
    """Floats in [0, 1] would be black."""
    with pytest.raises(ValueError, match=r"^video: .*\[n, f, h, w, c\]"):
        opened.save(videos, tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.usefixtures("compiled_anew")
def test_compiled_programs_are_kept_for_the_next_process(
    workdir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default where commands keep them, though this process has compiled without any before."""
    hits: list[str] = []
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    names = (*names, "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = tmp_path / "caches" / "tpdiff_jax" / "compiled" / machine_name()

    def videos(**arguments: object) -> np.ndarray:
        jax.clear_caches()  # as a new process
        hits.clear()
        return tpdiff_jax.open_run(workdir, **arguments).sample(labels=[3], num_videos=1, seed=5)

    def count(name: str, **_: object) -> None:
        hits.extend([name] if name == "/jax/compilation_cache/cache_hits" else [])

    jax.monitoring.register_event_listener(count)
    try:
        expected = videos(compilation_cache="OFF")
        videos()
        assert not folder.exists(), "what switched it off holds until a folder is named"
        jax.config.update("jax_enable_compilation_cache", True)
        np.testing.assert_array_equal(videos(), expected)
        assert not hits and any(folder.iterdir())
        np.testing.assert_array_equal(videos(), expected)
        assert hits, "nothing was read back"
        tpdiff_jax.open_run(workdir, compilation_cache=tmp_path / "own")
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
        tpdiff_jax.open_run(workdir)
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
        for wrong in ("", " "):
            with pytest.raises(ValueError, match="^--compilation_cache is '"):
                tpdiff_jax.open_run(workdir, compilation_cache=wrong)
    finally:
        jax.monitoring.unregister_event_listener(count)
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()


def test_what_does_not_fit_is_said(workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        ValueError, match="no argument 'guidance'; allowed: step, comp.*guidance_scale"
    ):
        tpdiff_jax.open_run(workdir, guidance=3.0)
    with pytest.raises(ValueError, match="is not a run folder"):
        tpdiff_jax.open_run(tmp_path)
    run = tpdiff_jax.open_run(workdir)
    with pytest.raises(ValueError, match="'12' must be 1 number"):
        run.sample(labels=[12])
    with pytest.raises(ValueError, match="give --labels or --caption, not both"):
        run.sample(labels=[1], captions=["the digit 1"])
    with pytest.raises(AttributeError, match="no attribute 'opne_run'"):
        _ = tpdiff_jax.opne_run


def test_importing_the_package_imports_no_jax() -> None:
    code = "import sys, tpdiff_jax; assert 'jax' not in sys.modules; print(tpdiff_jax.__version__)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == tpdiff_jax.__version__
