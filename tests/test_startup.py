"""What a mode imports: no more than it needs, and nothing that is merely installed."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.tiny import REPO, flags_of_sizes, tiny_config
from tpdiff_jax.command_line import MODES, NEED_A_RUN
from tpdiff_jax.run_folder import run_config

MERELY_INSTALLED = (
    *("torch", "tensorflow", "tensorflow_datasets", "tensorboardX", "transformers"),
    *("diffusers", "peft", "wandb", "ray", "gcsfs", "s3fs", "pandas", "pyarrow", "moviepy"),
)
OF_NETWORKS = ("jax", "flax", "optax", "orbax", "grain", "chex", "clu", "scipy", "sklearn")
LATE = ("grain", "sklearn", "scipy", "matplotlib", "jinja2")
"""Of training that has begun, of one data set, of one figure, of the report."""
RUN = """\
import sys
from tpdiff_jax import main
sys.argv = ["tpdiff_jax", *sys.argv[1:]]
try:
    main.run()
except SystemExit as stop:
    code = stop.code
print("LOADED", code, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded(scratch: pathlib.Path, *arguments: str) -> tuple[int, set[str]]:
    """Run a command where every foreign library tells of its import; return its code and modules.

    The libraries are empty ones that lie in front of any real one, and cannot be used.
    """
    site, told = scratch / "site", scratch / "told"
    for name in MERELY_INSTALLED:
        (site / name).mkdir(parents=True, exist_ok=True)
        tell = f"open({str(told)!r}, 'a').write('{name} ')\nraise ImportError('a stand-in')\n"
        (site / name / "__init__.py").write_text(tell)
    out = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{REPO}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "LOADED" in out.stdout, out.stderr
    assert not told.exists(), f"imported: {told.read_text()}\n{out.stderr[-2000:]}"
    _, code, *modules = out.stdout[out.stdout.index("LOADED") :].split()
    return int(code), set(modules)


@pytest.fixture
def run_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run that has been started and has saved nothing yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    run_config.save_config(folder, tiny_config())
    return folder


def test_stand_ins_would_be_seen(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text(
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import torch\n"
    )
    with pytest.raises(AssertionError, match="imported: torch"):
        loaded(tmp_path, f"--config={config}", f"--workdir={tmp_path}/w")


@pytest.mark.parametrize("mode", MODES)
def test_help_imports_neither_numpy_nor_what_is_built_on_it(
    mode: str, tmp_path: pathlib.Path
) -> None:
    code, modules = loaded(tmp_path, f"--mode={mode}", "--help")
    assert code == 0 and not modules & {"numpy", "av", "PIL", *OF_NETWORKS, *LATE}


@pytest.mark.parametrize(
    "words",
    [
        ["--config=flow"],
        ["--config=flow", "--workdir=w", "--nosuch=1"],
        ["--config=flow", "--workdir=w", "--config.train.num_step=5"],
        ["--config=flow", "--workdir=w", "--config.train.num_steps=many"],
        ["--config=flwo", "--workdir=w"],
        ["--mode=trian", "--workdir=w"],
    ],
)
def test_a_mistake_on_the_command_line_imports_no_more_than_help(
    words: list[str], tmp_path: pathlib.Path
) -> None:
    code, modules = loaded(tmp_path, *words)
    assert code == 2 and not modules & {"numpy", "av", "PIL", *OF_NETWORKS, *LATE}


def test_doctor_imports_no_network(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code, modules = loaded(tmp_path, "--mode=doctor", f"--workdir={run_folder}")
    assert code == 0 and not modules & {"av", "PIL", "array_record", *OF_NETWORKS, *LATE}


def test_preparing_pixels_imports_no_network(tmp_path: pathlib.Path) -> None:
    from tests.preparation.video_files import write_video

    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4")
    fields = {"source": tmp_path / "videos", "height": 32, "width": 32, "num_frames": 4}
    code, modules = loaded(
        tmp_path,
        *("--mode=prepare", "--config=prepare", f"--workdir={tmp_path}/clips"),
        *(f"--config.prepare.{name}={value}" for name, value in fields.items()),
    )
    # scipy's sparse matrices resize the frames; nothing else that networks need is there.
    assert code == 0 and not modules & ({*OF_NETWORKS, *LATE} - {"scipy"})


@pytest.mark.parametrize("mode", NEED_A_RUN)
def test_a_folder_that_is_no_run_is_told_before_jax_is_imported(
    mode: str, tmp_path: pathlib.Path
) -> None:
    step = ["--step=1"] if mode == "replay" else []
    code, modules = loaded(tmp_path, f"--mode={mode}", f"--workdir={tmp_path}", *step)
    assert code == 2 and not modules & {"av", "PIL", *OF_NETWORKS, *LATE}


@pytest.mark.parametrize("mode", ["sample", "evaluate", "export"])
def test_what_reads_a_checkpoint_imports_nothing_of_training(
    mode: str, run_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code, modules = loaded(tmp_path, f"--mode={mode}", f"--workdir={run_folder}")
    assert code == 2 and not modules & {"grain", "scipy", "matplotlib", "jinja2"}


@pytest.mark.parametrize("mode", ["train", "plan"])
def test_a_wrong_value_is_told_before_data_and_reports_are_imported(
    mode: str, tmp_path: pathlib.Path
) -> None:
    words = ["--config=flow", f"--workdir={tmp_path}/w", "--config.optim.name=nosuch"]
    code, modules = loaded(tmp_path, f"--mode={mode}", *words)
    assert code == 2 and not modules & {"grain", "scipy", "matplotlib", "jinja2"}


def test_training_imports_nothing_that_is_merely_installed(tmp_path: pathlib.Path) -> None:
    """Metrics, TensorBoard's file, videos, evaluation and report included."""
    words = ["--config=flow", f"--workdir={tmp_path}/run", *flags_of_sizes()]
    code, modules = loaded(tmp_path, *words, "--config.train.num_steps=1")
    assert code == 0 and {"grain", "matplotlib"} <= modules and "sklearn" not in modules
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    code, _ = loaded(tmp_path, "--mode=replay", f"--workdir={tmp_path}/run", "--step=1")
    assert code in (0, 2)
