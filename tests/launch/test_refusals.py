"""What launchers refuse before a cluster hears of it: names, links, overrides, foreign words."""

import pathlib
import tarfile
from collections.abc import Callable, Sequence

import pytest

from experiments.grid.overrides import read_config
from launch import gke, local, slurm, sweep, tpu_vm
from launch.archive import pack_code
from launch.job import Job
from tests.tiny import REPO
from tpdiff_jax.command_line.shipped_configs import config_names
from tpdiff_jax.experiment.build import check_fields

ZONE = "--zone=here-1a"
VERBS: dict[str, tuple[Callable[[Sequence[str]], int], list[str]]] = {
    **{f"gke {verb}": (gke.main, [verb]) for verb in ("submit", "wait", "logs", "delete")},
    **{
        f"tpu_vm {verb}": (tpu_vm.main, [verb, ZONE])
        for verb in ("run", "status", "logs", "stop", "delete")
    },
    "slurm": (slurm.main, []),
}
SUBMITS = {
    "gke": (gke.main, ["submit", "--name=tp", "--image=i", "--claim=runs", "--workdir=/runs/tp"]),
    "tpu_vm": (tpu_vm.main, ["run", "--name=tp", ZONE, "--workdir=/mnt/tp"]),
    "slurm": (slurm.main, ["--name=tp", "--workdir=/shared/tp"]),
}
NAMES = [
    *("--all", "-tp", "../up", "a/b", ".", "..", "tp\n", "t\x00p", "t p", "TP", "1tp", "tp-"),
    *("t_p", "t.p", "", "a" * 41, "tp;ls", "tp,other", "é", "--all-namespaces=true"),
]

# Of 16 frames with linear upsampling: other lengths start a little elsewhere.
TIME_GRIDS = (
    "((1.0,0.8,0.6666666666666666),(0.75338312624681,0.5,0.3333333333333333),"
    "(0.4330302758095891,0.2,0.0))"
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_hands_on_a_name_that_is_none(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = VERBS[verb]
    for name in NAMES:
        job = ["--workdir=/runs/tp", "--image=i", "--claim=runs"] if verb == "gke submit" else []
        job += ["--workdir=/runs/tp"] if verb in ("tpu_vm run", "slurm") else []
        assert main([*words, *job, f"--name={name}", "--dry-run"]) == 2, name
        captured = capsys.readouterr()
        assert captured.out == "" and f"--name={name!r} must be" in captured.err


@pytest.mark.parametrize(
    ("main", "words", "named"),
    [
        (gke.main, ["delete", "--name=tp", "--namespace=--all"], "--namespace=--all"),
        (gke.main, ["logs", "--name=tp", "--namespace=Prod"], "--namespace=Prod"),
        (gke.main, ["wait", "--name=tp", "--context=-x"], "--context='-x'"),
        (tpu_vm.main, ["delete", "--name=tp", "--zone=--all"], "--zone='--all'"),
        *(
            (tpu_vm.main, ["run", "--name=tp", ZONE, "--workdir=/mnt/tp", word], named)
            for word, named in (
                ("--poll-seconds=-1", "--poll-seconds is -1.0; allowed: [0, 86400]"),
                ("--poll-seconds=nan", "--poll-seconds is nan; allowed: [0, 86400]"),
                ("--poll-seconds=inf", "--poll-seconds is inf; allowed: [0, 86400]"),
                ("--max-restarts=-1", "--max-restarts is -1; allowed: at least 0"),
                ("--accelerator-type=v6e-0", "--accelerator-type=v6e-0 must be"),
                ("--accelerator-type=v5litepod-08", "--accelerator-type=v5litepod-08 must be"),
            )
        ),
        (tpu_vm.main, ["stop", "--name=tp", "--zone=a\nb"], "--zone='a\\nb'"),
        (tpu_vm.main, ["status", "--name=tp", ZONE, "--project=a b"], "--project='a b'"),
        (tpu_vm.main, ["logs", "--name=tp", ZONE, "--create-flag=word"], "--create-flag='word'"),
        (slurm.main, ["--name=tp", "--workdir=/r", "--sbatch-flag=a.sh"], "--sbatch-flag='a.sh'"),
        (slurm.main, ["--name=tp", "--workdir=/r", "--partition=a b"], "--partition='a b'"),
    ],
)
def test_places_and_further_flags_are_what_they_are_called(
    main: Callable[[Sequence[str]], int],
    words: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and named in captured.err


def test_a_sweep_refuses_the_name_of_its_jobs_before_it_plans(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("--all", "../a", "A", "a" * 40):
        words = [f"--out={tmp_path}", f"--name={name}", "--submit=slurm", "--dry-run"]
        assert sweep.main([*words, "--grid=train.num_steps=2,3"]) == 2
        assert "--name=" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", SUBMITS)
@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.train.num_stepz=3", "num_stepz"),
        ("--config.trian.num_steps=3", "trian"),
        ("--config.train.num_steps=many", "num_steps"),
        ("--config.train.num_steps=0", "train.num_steps is 0"),
        ("--config.alignment.mode=closest", "alignment.mode is 'closest'"),
        ("--config.optim.schedule=linear", "optim.schedule is 'linear'"),
        ("--config.pyramid.frame_strides=(4,3,1)", "pyramid.frame_strides"),
        ("--config.train.batch_size=12", "train.batch_size=12 must be a multiple"),
        ("--config.sample.steps_per_stage=(1,2)", "sample.steps_per_stage"),
        ("--config.model.name=unet", "model.name"),
        ("--config.data.name=mnist", "data.name"),
        ("--config.log.sinks=('jsonl','mlflow')", "log.sinks"),
        *(
            (f"--config.{field}={value}", field)
            for field, value in {
                "model.remat": "bogus",
                "model.num_heads": "3",
                "model.dtype": "fp16",
                "adaptation.rank": "-1",
                "pyramid.upsample": "cubic",
                "pyramid.overlap": "0.5",
                "data.num_frames": "7",
            }.items()
        ),
        ("--config.train.seed=-1", "train.seed"),
        ("--config.sample.video_weights=gs://b/v", "sample.video_weights=gs://b/v is an address"),
        ("--config.train.num_steps", "--config.train.num_steps"),
        ("stray", "stray"),
        ("--workdirr=/x", "--workdirr=/x"),
    ],
)
def test_an_override_that_the_trainer_would_refuse_is_refused_in_a_dry_run(
    launcher: str, override: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = SUBMITS[launcher]
    assert main([*words, "--dry-run", override]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and named in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.model.remat=bogus", "model.remat is 'bogus'"),
        ("--config.pyramid.upsample=cubic", "pyramid.upsample is 'cubic'"),
        ("--config.adaptation.rank=-1", "adaptation.rank is -1"),
        ("--config.model.patch_size=3", ""),
        ("--config.pyramid.stage_fractions=auto", ""),
        ("--config.mesh.fsdp=64", ""),
    ],
)
def test_where_the_clips_are_elsewhere_what_needs_none_is_checked(
    override: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = SUBMITS["slurm"]
    data = ["--config=video_folder", "--config.data.folder=/elsewhere/clips"]
    assert main([*words, "--dry-run", *data, override]) == (2 if named else 0)
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["--config.model.attention_kernel=splash"], ""),
        (["--config.model.attention_kernel=cudnn", "--config.model.dtype=bfloat16"], ""),
        (["--config.model.attention_kernel=cudnn"], "needs model.dtype='bfloat16'"),
        (["--config.measure.fvd_weights=/elsewhere/i3d.safetensors"], ""),
        (["--config.measure.clip_folder=/elsewhere/clip"], ""),
        (["--config.pyramid.upsample=linear", f"--config.sample.time_grids={TIME_GRIDS}"], ""),
        (["--config.sample.time_grids=((1.0,0.5,0.0),)"], "sample.time_grids"),
    ],
)
def test_kernels_files_and_lengths_that_only_the_workers_have_are_theirs(
    overrides: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = SUBMITS["slurm"]
    data = ["--config=video_folder", "--config.data.folder=/elsewhere/clips"]
    assert main([*words, "--dry-run", *data, *overrides]) == (2 if named else 0)
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "machines", "num_devices"),
    [
        ("slurm", ["--nodes=2", "--gpus-per-node=8"], 16),
        ("gke", ["--tpu=v6e", "--topology=4x4"], 16),
        ("gke", ["--tpu=tpu7x", "--topology=2x2x4"], 32),  # two devices a chip
        ("tpu_vm", ["--accelerator-type=v6e-16"], 16),
        ("tpu_vm", ["--accelerator-type=v5p-32"], 16),  # cores, two a device
        ("tpu_vm", ["--accelerator-type=v3-32"], 32),  # cores
    ],
)
def test_a_batch_that_the_machines_cannot_share_is_refused_before_they_are_asked_for(
    launcher: str, machines: list[str], num_devices: int, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = SUBMITS[launcher]
    assert main([*words, *machines, "--dry-run"]) == 2
    captured = capsys.readouterr()
    expected = f"train.batch_size=8 must be a multiple of mesh.data={num_devices} * mesh.fsdp=1"
    assert captured.out == "" and expected in captured.err
    assert main([*words, *machines, "--dry-run", "--config.train.batch_size=64"]) == 0
    capsys.readouterr()
    assert main([*words, *machines, "--dry-run", "--config.mesh.data=3"]) == 2
    assert f"the number of devices, {num_devices}" in capsys.readouterr().err


def test_devices_that_only_the_cluster_knows_are_not_counted() -> None:
    main, words = SUBMITS["slurm"]
    assert main([*words, "--nodes=16", "--sbatch-flag=--gres=gpu:1", "--dry-run"]) == 0


@pytest.mark.parametrize("name", config_names())
def test_every_shipped_config_to_train_from_is_handed_on(name: str) -> None:
    config = read_config(name, {})
    if "model" in config:
        check_fields(config)


@pytest.mark.parametrize("launcher", SUBMITS)
def test_good_overrides_are_handed_on(launcher: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, words = SUBMITS[launcher]
    assert main([*words, "--dry-run", "--config.pyramid.frame_strides=(1,)"]) == 0
    assert "--config.pyramid.frame_strides=(1,)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--config=configs/flow.py", "--workdir=x", "--config.train.num_stepz=3"], "num_stepz"),
        (["--config=configs/flow.py", "--workdir=x", "stray"], "'stray' is no flag"),
        (["--config=configs/flow.py"], "--workdir is required"),
        (["--mode=plan", "--config=configs/flow.py", "--workdir=x"], "--coordinator_address"),
        (["--mode=sample", "--workdir=x", "--layout=l"], "--layout is no flag"),
    ],
)
def test_several_processes_are_not_started_for_a_command_line_that_all_refuse(
    words: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "run_all", lambda *_: pytest.fail("started"))
    for dry in ([], ["--dry-run"]):
        assert local.main([*dry, "--", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and named in captured.err


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """A small repository beside a file that is not part of it."""
    root = folder / "root"
    for name in ("configs/a.py", "launch/b.sh", "tpdiff_jax/c.py", "runs/d.txt", ".git/config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "requirements.txt").write_text("jax")
    (folder / "secret").write_text("secret")
    return root


def test_a_link_to_a_file_that_is_sent_along_is_sent_as_that_file(tmp_path: pathlib.Path) -> None:
    root = checkout(tmp_path)
    (root / "configs" / "linked.py").symlink_to("a.py")
    assert pack_code(root, tmp_path / "code.tar.gz") == 5
    with tarfile.open(tmp_path / "code.tar.gz") as archive:
        member = archive.getmember("configs/linked.py")
        assert member.isfile() and archive.extractfile(member).read() == b"configs/a.py"
        assert not any(found.issym() or found.islnk() for found in archive.getmembers())


@pytest.mark.parametrize(
    "target",
    ["../../secret", "/etc/passwd", "../runs/d.txt", "../.git/config", "gone.py", "../runs"],
)
def test_a_link_to_anything_else_is_refused(target: str, tmp_path: pathlib.Path) -> None:
    root = checkout(tmp_path)
    (root / "configs" / "linked.py").symlink_to(target)
    with pytest.raises(ValueError, match=r"configs/linked\.py is a link"):
        pack_code(root, tmp_path / "code.tar.gz")
    assert not (tmp_path / "code.tar.gz").exists()


def test_a_part_that_is_a_link_itself_is_refused(tmp_path: pathlib.Path) -> None:
    root = checkout(tmp_path)
    (root / "launch" / "b.sh").unlink()
    (root / "launch").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.sh").write_text("b")
    (root / "launch").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="launch is a link"):
        pack_code(root, tmp_path / "code.tar.gz")


def test_a_config_that_is_a_link_out_of_the_repository_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout(tmp_path)
    (root / "configs" / "linked.py").symlink_to("../../secret")
    monkeypatch.setattr("launch.job.ROOT", root)
    with pytest.raises(ValueError, match=r"--config=configs/linked\.py is a link that leaves"):
        Job(name="tp", config="configs/linked.py", workdir="/runs/tp")
    assert Job(name="tp", config="configs/a.py", workdir="/runs/tp").config == "configs/a.py"


def test_a_config_that_is_not_sent_along_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(tmp_path)
    source = (REPO / "configs" / "flow.py").read_text()
    (root / "mine.py").write_text(source)
    monkeypatch.setattr("launch.job.ROOT", root)
    words = ["run", "--name=tp", ZONE, "--workdir=/mnt/tp", "--dry-run", "--config=mine.py"]
    assert tpu_vm.main(words) == 2
    assert "--config=mine.py must lie in configs/" in capsys.readouterr().err
