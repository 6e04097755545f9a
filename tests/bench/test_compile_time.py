"""The bench of compilation: every program of a run, alone and as training compiles them."""

import json

import pytest

from bench import compile_time
from bench.compile_time import (
    FIRST,
    PARALLEL,
    SAMPLER,
    SECOND,
    UPDATE,
    main,
    measure,
    stage_name,
    write_page,
)
from tests.tiny import flags_of_sizes

pytestmark = pytest.mark.usefixtures("compiled_anew")

SECONDS = {stage_name(0): [1.0, 2.0], stage_name(1): [2.0, 4.0], SAMPLER: [5.0, 5.0]}
SECONDS |= {PARALLEL: [2.0, 4.0]}


def test_stages_are_added_and_compared_with_all_as_training_compiles_them():
    report = {
        "device": {"platform": "cpu", "kind": "cpu", "cpu_cores": 2},
        "command": "python -m bench.compile_time",
        "seconds": SECONDS,
    }
    page = write_page(report)
    assert "| all stages one after another | 4.5 [3.75, 5.25] |" in page
    assert "ready 1.5 [1.5, 1.5] times as fast" in page


def test_the_second_start_is_compared_with_the_first_of_its_round():
    report = {"device": {"machine": "a machine"}, "command": "python", "seconds": {}}
    report["starts"] = {FIRST: [4.0, 8.0, 12.0], SECOND: [0.4, 1.6, 1.8]}
    page = write_page(report)
    assert "| first, nothing kept | 8 [6, 10] |" in page
    assert "takes 0.15 [0.125, 0.175] of the first's time" in page
    assert "as training compiles them" not in page


def test_every_round_compiles_everything_once():
    log = []
    cases = {name: lambda name=name: log.append(name) for name in SECONDS}
    seconds = measure(cases, rounds=3)
    assert sorted(log) == sorted(3 * list(SECONDS))
    assert all(len(column) == 3 for column in seconds.values())


def test_bad_input_is_one_line(tmp_path, capsys):
    flags = [f"--out={tmp_path}", "--config.train.num_steps=many"]
    assert main(flags) == compile_time.EXIT_BAD_INPUT
    assert "num_steps" in capsys.readouterr().err


@pytest.mark.slow
def test_the_programs_of_a_tiny_run_are_compiled(tmp_path):
    one_stage = ["--config.pyramid.frame_strides=(1,)", "--config.sample.num_steps=1"]
    assert main([f"--out={tmp_path}", "--rounds=1", *flags_of_sizes(), *one_stage]) == 0
    report = json.loads((tmp_path / "compile_time.json").read_text())
    seconds, starts = report["seconds"], report["starts"]
    assert 0 < starts[SECOND][0] < starts[FIRST][0]
    assert list(seconds) == [stage_name(0), UPDATE, SAMPLER, PARALLEL]
    assert min(column[0] for column in seconds.values()) > 0
