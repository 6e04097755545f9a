"""The table of sinks: chosen by name, opened only when named, never able to stop a run."""

import importlib
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from absl import logging

from tests.run_log.ledgers import RecordingSink
from tests.tiny import REPO, tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.specs import LogSpec
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.run_log.metric_writers import open_metric_writer
from tpdiff_jax.run_log.sinks import DEFAULT_SINKS, SINKS

VIDEOS = {"samples": np.zeros((1, 2, 4, 4, 1), np.uint8)}


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


class Failing(RecordingSink):
    """A sink of which one method, or opening it, fails with an error of its own kind."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self._fail("open")

    def _fail(self, method: str) -> None:
        if method == self._method:
            raise ConnectionError("the server is away")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        self._fail("write_scalars")

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        self._fail("write_videos")

    def close(self) -> None:
        self._fail("close")


def test_a_further_sink_is_one_entry_and_gets_plain_numbers_and_videos(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[pathlib.Path, int]] = []
    sink = RecordingSink()

    def construct(workdir: pathlib.Path, last_kept_step: int) -> RecordingSink:
        opened.append((workdir, last_kept_step))
        return sink

    monkeypatch.setitem(SINKS, "elsewhere", construct)
    sinks = LogSpec(sinks=("jsonl", "elsewhere")).sinks
    with open_metric_writer(tmp_path, restored_step=4, sinks=sinks) as writer:
        writer.write_scalars(np.int64(5), {"loss": np.float32(0.5), "bad": np.nan})  # type: ignore[arg-type]
        writer.write_videos(5, VIDEOS)
    assert opened == [(tmp_path, 4)]
    assert sink.lines == [{"step": 5, "loss": 0.5, "bad": None}] and sink.is_closed
    assert type(sink.lines[0]["loss"]) is float and type(sink.lines[0]["step"]) is int
    assert sink.videos == [(5, VIDEOS)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("method", "num_failures"),
    [("open", 3), ("write_scalars", 2), ("write_videos", 1), ("close", 1)],
)
def test_a_failing_sink_is_named_once_counted_and_silences_no_other(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
    is_first: bool,
    method: str,
    num_failures: int,
) -> None:
    good = RecordingSink()
    entries = {"failing": lambda *_: Failing(method), "good": lambda *_: good}
    for name, construct in entries.items():
        monkeypatch.setitem(SINKS, name, construct)
    names = list(entries) if is_first else list(entries)[::-1]
    with open_metric_writer(tmp_path, restored_step=None, sinks=names) as writer:
        for step in (1, 2):
            writer.write_scalars(step, {"loss": 1.0})
        writer.write_videos(2, VIDEOS)
    assert [line["step"] for line in good.lines] == [1, 2]
    assert len(good.videos) == 1 and good.is_closed
    assert writer.num_failed_writes == num_failures
    (warning,) = warnings
    assert "failing" in warning and "ConnectionError: the server is away" in warning


def test_a_sink_that_is_not_named_is_neither_written_nor_imported(tmp_path: pathlib.Path) -> None:
    code = (
        "import sys\n"
        "from tpdiff_jax.run_log.metric_writers import open_metric_writer\n"
        "with open_metric_writer(sys.argv[1], restored_step=None, sinks=('jsonl',)) as writer:\n"
        "    writer.write_scalars(1, {'loss': 1.0})\n"
        "assert not {'tensorboard', 'tpdiff_jax.run_log.tensorboard'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        (("jsonl", "mlflow"), r"log\.sinks is 'mlflow'; allowed: 'jsonl', 'tensorboard', 'wandb'"),
        (("jsonl", 3), r"log\.sinks is 3; allowed: 'jsonl', 'tensorboard'"),
        (("jsonl", "jsonl"), r"log\.sinks=\('jsonl', 'jsonl'\) must name each sink once"),
        (("tensorboard",), r"log\.sinks=\('tensorboard',\) must hold 'jsonl': reports"),
        ((), r"log\.sinks=\(\) must hold 'jsonl'"),
    ],
)
def test_sinks_that_do_not_fit_are_refused(sinks: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_experiment(tiny_config(log__sinks=sinks))


def test_a_sink_whose_library_is_missing_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tpdiff_jax.experiment.specs.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="names 'wandb', which needs: pip install wandb"):
        LogSpec(sinks=("jsonl", "wandb"))
    assert LogSpec().sinks == DEFAULT_SINKS


def test_a_text_in_place_of_a_tuple_of_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"log\.sinks='jsonl' must be a tuple of names"):
        LogSpec(sinks="jsonl")  # type: ignore[arg-type]


def test_an_unknown_field_of_the_group_is_refused_by_name() -> None:
    config = tiny_config()
    with config.unlocked():
        config.log.sink = ("jsonl",)
    with pytest.raises(ValueError, match=r"unknown config field log\.sink; .* log\.sinks"):
        build_experiment(config)


def test_a_run_from_before_the_group_was_there_has_the_sinks_that_it_had() -> None:
    config = tiny_config()
    with config.unlocked():
        del config.log
    assert build_experiment(config).log.sinks == ("jsonl", "tensorboard")
    run_config.check_same_run(config, tiny_config())


def test_every_config_of_a_run_names_its_sinks() -> None:
    modules = [p.stem for p in (REPO / "configs").glob("*.py") if p.stem != "__init__"]
    configs = {name: importlib.import_module(f"configs.{name}").get_config() for name in modules}
    runs = {name: config for name, config in configs.items() if "train" in config}
    assert len(runs) >= 8
    for name, config in runs.items():
        assert config.log.sinks == DEFAULT_SINKS, name


def test_another_sinks_value_is_the_same_run_and_the_same_checkpoints() -> None:
    before, after = tiny_config(), tiny_config(log__sinks=("jsonl",))
    run_config.check_same_run(before, after)
    assert run_config.deciding_fields(before) == run_config.deciding_fields(after)
