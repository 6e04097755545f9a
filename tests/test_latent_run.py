"""The paper's systems, Wan and Open-Sora as users run them, small: from videos to videos."""

import json
import pathlib
import unittest.mock
from typing import Any, NamedTuple

import av
import jax
import numpy as np
import pytest

from experiments.tiny_text_encoders import (
    write_t5_encoder,
    write_text_encoders,
    write_umt5_encoder,
)
from tests.encoders.tiny_autoencoders import write_causal_video_vae, write_image_vae, write_wan_vae
from tests.models.open_sora_vae.open_sora_vae_reference import write_open_sora_vae
from tests.preparation.video_files import write_video
from tpdiff_jax import main
from tpdiff_jax.command_line import parse
from tpdiff_jax.data import VideoRecordsSpec
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import open_run
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.initial_state import make_state

NUM_VIDEOS, HEIGHT, WIDTH, FPS = 8, 16, 24, 6
PROMPTS = ["stripes that count from 3", "stripes that count from 5"]
TRAINING = {
    "model.text_dim": 16,
    "model.dtype": "float32",
    "pyramid.frame_strides": (2, 1),
    "alignment.group_size": 4,
    "train.num_steps": 2,
    "train.batch_size": 4,
    "train.sample_every_steps": 0,
    "optim.warmup_steps": 0,
    "sample.num_steps": 2,
    "sample.num_videos": 2,
    "sample.batch_size": 2,
    "eval.num_videos": 2,
    "eval.batch_size": 2,
}


class System(NamedTuple):
    """A network, the encoders in front of it, and what becomes of a clip on the way."""

    clips_config: str
    config: str
    num_frames: int
    text_tokens: int
    model: dict[str, Any]
    num_latents: int
    stage_frames: list[int]
    text: str = "text"
    more: dict[str, Any] = {}


SYSTEMS = {
    "miniflux": System(
        clips_config="configs/miniflux_clips.py",
        config="configs/miniflux_vid.py",
        num_frames=9,
        text_tokens=7,
        model={
            "num_heads": 1,
            "num_double_blocks": 1,
            "num_single_blocks": 1,
            "rope_dims": (4, 6, 6),
            "num_text_tokens": 7,
            "pooled_dim": 16,
        },
        num_latents=3,
        stage_frames=[2, 3],
    ),
    "animatediff": System(
        clips_config="configs/animatediff_clips.py",
        config="configs/animatediff.py",
        num_frames=4,
        text_tokens=0,
        model={"level_channels": (8,), "level_depth": 1, "num_heads": 2, "num_groups": 4},
        num_latents=4,
        stage_frames=[2, 4],
    ),
    "modelscope": System(
        clips_config="configs/modelscope_clips.py",
        config="configs/modelscope.py",
        num_frames=4,
        text_tokens=0,
        model={"level_channels": (8,), "level_depth": 1, "head_dim": 4, "num_groups": 4},
        num_latents=4,
        stage_frames=[2, 4],
        more={"model.implicit_rate": True, "mesh.fsdp": 1},
    ),
    "wan": System(
        clips_config="configs/wan_clips.py",
        config="configs/wan_t2v.py",
        num_frames=9,
        text_tokens=7,
        model={
            "patch_size": 1,
            "num_heads": 1,
            "head_dim": 12,
            "depth": 1,
            "feed_forward_dim": 16,
            "num_text_tokens": 7,
        },
        num_latents=3,
        stage_frames=[2, 3],
        text="umt5",
        more={"adaptation.rank": 0, "adaptation.trained": ""},
    ),
    **{
        name: System(
            clips_config=f"configs/{name}_clips.py",
            config=f"configs/{name}.py",
            num_frames=num_frames,
            text_tokens=7,
            model={
                "patch_size": 1,
                "hidden_size": 8,
                "num_heads": 1,
                "depth": 1,
                "mlp_ratio": 2.0,
                "num_text_tokens": 7,
            },
            num_latents=num_latents,
            stage_frames=[num_latents // 2, num_latents],
            text="t5",
        )
        for name, num_frames, num_latents in (("open_sora_v1", 4, 4), ("open_sora_v1_2", 10, 6))
    },
}
FIRST_LATENT_APART = ("miniflux", "open_sora_v1_2", "wan")


def command(mode: str, **arguments: Any) -> None:
    """Run one mode by its flags, as `python -m tpdiff_jax.main` does, in this process."""
    flags = [f"--{name}={value}" for name, value in {"mode": mode, **arguments}.items()]
    argv = ["tpdiff_jax", *flags]
    with unittest.mock.patch.object(main, "set_up_jax"):  # jax has long started
        assert main.run_mode(parse(argv)) == 0


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Videos with captions, text encoders, autoencoders, and others of the same shape."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "videos").mkdir()
    captions = [f"stripes that count from {i}" for i in range(NUM_VIDEOS)]
    for i, caption in enumerate(captions):
        write_video(folder / "videos" / f"{i}.mp4", 60)
        (folder / "videos" / f"{i}.txt").write_text(caption)
    write_text_encoders(folder / "text", captions, width=16)
    write_t5_encoder(folder / "t5", captions, width=16)
    write_umt5_encoder(folder / "umt5", captions, width=16)
    write_causal_video_vae(folder / "miniflux")
    write_wan_vae(folder / "wan")
    for name in ("animatediff", "modelscope", "open_sora_v1"):
        write_image_vae(folder / name)
    write_open_sora_vae(folder / "open_sora_v1_2")
    write_causal_video_vae(folder / "others", seed=1)
    return folder


def prepare(system: System, sources: pathlib.Path, vae: pathlib.Path, out: pathlib.Path) -> None:
    fields = {
        "source": sources / "videos", "video_weights": vae, "text_weights": sources / system.text,
        "num_frames": system.num_frames, "fps": FPS, "height": HEIGHT, "width": WIDTH,
        "text_tokens": system.text_tokens, "test_share": 0.4, "num_workers": 0,
    }  # fmt: skip
    flags = {f"config.prepare.{name}": value for name, value in fields.items()}
    command("prepare", config=system.clips_config, workdir=out, **flags)


def shown(path: pathlib.Path) -> tuple[int, float, float]:
    """Frames, frames a second and aspect ratio of a video file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return len(frames), float(stream.average_rate), frames[0].width / frames[0].height


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_from_videos_to_videos_of_prompts(
    name: str, sources: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system, vae, text = SYSTEMS[name], sources / name, sources / SYSTEMS[name].text
    clips, run, videos = tmp_path / "clips", tmp_path / "run", tmp_path / "videos"

    # ---- prepare
    prepare(system, sources, vae, clips)
    dataset = VideoRecordsSpec(folder=str(clips))
    assert dataset.num_frames == system.num_latents and not dataset.is_pixels
    assert dataset.fps == FPS

    # ---- train
    fields = {**TRAINING, **{f"model.{k}": v for k, v in system.model.items()}, **system.more}
    training = {"config": system.config, "config.data.folder": clips}
    training |= {f"config.{k}": v for k, v in fields.items()}
    if name == "modelscope":
        with pytest.raises(ValueError, match="model.implicit_rate=False refuses the stage"):
            command("train", workdir=run, **training | {"config.model.implicit_rate": False})
    if name in FIRST_LATENT_APART:
        training["config.mesh.fsdp"] = 1
        with pytest.raises(ValueError, match="'nearest' would copy the first latent"):
            command("train", workdir=run, **training, **{"config.pyramid.upsample": "nearest"})
    command("train", workdir=run, **training)
    results = json.loads((run / "results.json").read_text())
    assert results["counts"]["steps"] == 2 and results["metrics"] == {}
    assert [stage["shape"][0] for stage in results["stages"]] == system.stage_frames
    assert {path.suffix for path in (run / "samples").iterdir()} == {".npy"}, "no decoder yet"

    # ---- sample
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    sampling = {"workdir": run, "prompts": tmp_path / "prompts.txt", "text_weights": text}
    sampling |= {"naming": "vbench", "out": videos}
    with pytest.raises(ValueError, match=r"sample\.video_weights='.*' must be the folder of the"):
        command("sample", **sampling, video_weights=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"sample\.video_weights='.*' does not hold the '.*_vae'"):
        command("sample", **sampling, video_weights=sources / "others")
    assert not videos.exists()
    command("sample", **sampling, video_weights=vae)
    assert {p.name for p in videos.iterdir()} == {f"{p}-0.mp4" for p in PROMPTS}
    assert shown(videos / f"{PROMPTS[0]}-0.mp4") == (system.num_frames, FPS, WIDTH / HEIGHT)

    # ---- evaluate
    with pytest.raises(ValueError, match="--video_weights must be the folder of the autoencoder"):
        command("evaluate", workdir=run)
    command("evaluate", workdir=run, video_weights=vae)
    evaluation = json.loads((run / "evaluation_00000002.json").read_text())
    assert np.isfinite(evaluation["metrics"]["statistics"])
    assert evaluation["measurement"]["frames"] == system.num_frames
    assert evaluation["measurement"]["frame_size"] == f"{HEIGHT}x{WIDTH}"
    assert "ceiling" in capsys.readouterr().out

    # ---- export, and in again
    command("export", workdir=run, out=tmp_path / "weights")
    config = run_config.load_config(run)
    config.model.weights = str(tmp_path / "weights")
    again = build_experiment(config)
    params = averaged_params(again.task, make_state(again, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, params, open_run(run).params)
