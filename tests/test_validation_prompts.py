"""Prompts shown on the way: encoded once, the encoder gone, the same after a resume."""

import dataclasses
import gc
import pathlib
import shutil
import weakref
from typing import Any

import jax
import numpy as np
import pytest
from absl import logging as absl_logging
from tensorboard.compat.proto.event_pb2 import Event

from configs import (
    animatediff,
    captioned_digits,
    captioned_digits_open_sora,
    captioned_digits_wan,
)
from experiments.captioned_digits import MATERIALS, WRITERS, prepare_clips, write_videos
from tests.encoders.tiny_autoencoders import write_image_vae
from tests.test_text_run import OVERRIDES
from tests.tiny import set_field, tiny_config
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.encoders import open_text_encoder, text_models
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.generation.validation_prompts import (
    SHOWN_PROMPTS_FILE,
    encode_prompts,
    settle_prompts,
)
from tpdiff_jax.report.run_files import read_run
from tpdiff_jax.train import train

PROMPTS = ["the digit 3 moves fast to the left", "the digit 7 moves slowly to the top"]
SIZE, NUM_TOKENS = 16, 9
CONFIGS = {
    "flux": captioned_digits,
    "animatediff": animatediff,
    "open_sora": captioned_digits_open_sora,
    "wan": captioned_digits_wan,
}
MODELS: dict[str, dict[str, Any]] = {
    "flux": {
        "num_heads": 1, "num_double_blocks": 1, "num_single_blocks": 1, "pooled_dim": 16,
        "num_text_tokens": NUM_TOKENS,
    },
    "animatediff": {
        "level_channels": (8,), "level_depth": 1, "num_heads": 2, "num_groups": 4,
        "dtype": "float32", "num_text_tokens": NUM_TOKENS,
    },
    "open_sora": {
        "num_heads": 1, "hidden_size": 16, "depth": 1, "num_text_tokens": NUM_TOKENS,
    },
    "wan": {
        "num_heads": 1, "head_dim": 12, "depth": 1, "feed_forward_dim": 16,
        "num_text_tokens": NUM_TOKENS,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CONFIGS))
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A captioned network's folder: clips, their text encoder, prompts; and its config."""
    name, out = request.param, tmp_path_factory.mktemp(request.param)
    digits = MovingDigitsSpec(num_frames=4, frame_size=SIZE)
    captions = write_videos(out / "videos", digits, 6)
    write = WRITERS[MATERIALS[name].text_encoder]
    write(out / "text_encoders", [*captions, *PROMPTS], width=16)
    write_image_vae(out / "image_vae")
    model = captioned_digits.get_config().model
    model.name, model.num_text_tokens = name, NUM_TOKENS
    prepare_clips(out, digits, model)
    (out / "prompts.txt").write_text("\n\n".join(PROMPTS) + "\n")
    return name, out


def make_config(system: Any, **more: Any) -> Any:
    name, out = system
    config = CONFIGS[name].get_config()
    shared = {k: v for k, v in OVERRIDES.items() if not k.startswith("model.")}
    of_model = {f"model.{k}": v for k, v in {"text_dim": 16, **MODELS[name]}.items()}
    paths = {
        "data.folder": str(out / "clips"),
        "sample.prompts": str(out / "prompts.txt"),
        "sample.text_weights": str(out / "text_encoders"),
    }
    if MATERIALS[name].video_encoder != "pixels":
        paths["sample.video_weights"] = str(out / "image_vae")
    stages = {"pyramid.frame_strides": (1,), "sample.num_steps": 1}  # prompts know no stages
    fields = {**shared, **of_model, **paths, **stages, "mesh.fsdp": 1, "sample.num_videos": 3}
    for field, value in {**fields, "train.sample_every_steps": 1, **more}.items():
        set_field(config, field, value)
    return config


def tensorboard_tags(workdir: pathlib.Path) -> list[tuple[int, str]]:
    """(step, tag) of every picture in a run's TensorBoard files."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.tag) for v in event.summary.value if v.HasField("image")]
            at += 16 + length
    return found


@pytest.mark.slow
def test_prompts_are_shown_on_the_way_at_the_end_and_after_a_resume(
    system: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt a video; only the first session opens the text encoder, and it is gone then."""
    opened = []
    real = text_models.open_model

    def open_model(*args: Any, **kwargs: Any) -> Any:
        model = real(*args, **kwargs)
        opened.append(weakref.ref(model.model))
        return model

    monkeypatch.setattr(text_models, "open_model", open_model)
    shown = []
    real_call = Sampler.__call__

    def call(self: Sampler, params: Any, cond: Any, **kwargs: Any) -> np.ndarray:
        gc.collect()
        assert not [ref for ref in opened if ref() is not None], "a text encoder is still held"
        if kwargs["seed"] == 0:  # samples; evaluation has seed 1
            shown.append({name: np.asarray(cond[name]) for name in cond})
        return real_call(self, params, cond, **kwargs)

    monkeypatch.setattr(Sampler, "__call__", call)
    _, out = system
    workdir = tmp_path / "run"
    train(build_experiment(make_config(system)), workdir)
    assert opened
    names = [f"{i:04d}_{prompt.replace(' ', '_')}" for i, prompt in enumerate(PROMPTS)]
    for folder in (workdir / "samples", workdir / "samples" / "step_00000001"):
        found = sorted(path.name for path in folder.iterdir() if path.is_file())
        assert found == [*(f"{name}.mp4" for name in names), "grid.gif"]
    tags = ["samples", *(f"prompts/{name}" for name in names)]
    assert tensorboard_tags(workdir) == [(step, tag) for step in (1, 2) for tag in tags]
    assert [step for step, _ in read_run(workdir).earlier] == [1]
    page = (workdir / "report.html").read_text()
    assert "step 1</figcaption>" in page and names[1].replace("_", " ") in page

    # What they are encoded to is what the encoder says, in every entry of the condition.
    parts = build_experiment(make_config(system)).dataset.encoders["text"]
    encoder = open_text_encoder(parts["name"], out / "text_encoders", parts["text_tokens"])
    for name, array in encoder(PROMPTS).items():
        assert len(shown) == 2
        for cond in shown:
            np.testing.assert_array_equal(cond[name], array, name)
    del encoder

    # A longer run goes on without the encoder, and a changed file does not change what it shows.
    num_opened, before = len(opened), dict(shown[0])
    shutil.move(out / "text_encoders", tmp_path / "away")
    (out / "prompts.txt").write_text("another prompt")
    try:
        train(build_experiment(make_config(system, **{"train.num_steps": 4})), workdir)
    finally:
        (out / "prompts.txt").write_text("\n".join(PROMPTS))
        shutil.move(tmp_path / "away", out / "text_encoders")
    assert len(opened) == num_opened, "the resumed session opens no text encoder"
    assert len(shown) == 4, "after steps 1 and 2, then 3 and 4"
    for name, array in before.items():
        np.testing.assert_array_equal(shown[-1][name], array, name)
    assert (workdir / "samples" / "step_00000003" / f"{names[0]}.mp4").is_file()


def test_without_the_field_the_clips_own_captions_are_shown(
    system: Any, tmp_path: pathlib.Path
) -> None:
    experiment = build_experiment(make_config(system, **{"sample.prompts": ""}))
    assert encode_prompts(experiment, tmp_path) is None
    requests = settle_prompts(experiment, tmp_path, None)
    expected = experiment.dataset.requests(3)
    assert list(requests.captions) == list(expected.captions) and requests.num_videos == 3
    jax.tree.map(np.testing.assert_array_equal, dict(requests.cond), dict(expected.cond))
    assert not list(tmp_path.iterdir())


def test_prompts_that_cannot_be_encoded_are_refused_by_field_and_change_nothing(
    system: Any, tmp_path: pathlib.Path
) -> None:
    _, out = system
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    workdir = tmp_path / "run"
    for fields, message in (
        ({"sample.prompts": "nowhere.txt"}, "sample.prompts=nowhere.txt must be a file"),
        ({"sample.prompts": str(tmp_path / "empty.txt")}, "sample.prompts=.* holds no prompt"),
        ({"sample.prompts": str(tmp_path / "bytes.txt")}, "sample.prompts=.*bytes.txt"),
        ({"sample.text_weights": ""}, "sample.text_weights must be the folder of the text encoder"),
        ({"sample.text_weights": str(out / "image_vae")}, "sample.text_weights: "),
    ):
        with pytest.raises(ValueError, match=message):
            train(build_experiment(make_config(system, **fields)), workdir)
    assert not (workdir / "config.json").exists()


def test_prompts_of_digits_become_their_labels(tmp_path: pathlib.Path) -> None:
    """A network that takes labels shows the digits that prompts name; no text encoder is asked."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    experiment = build_experiment(tiny_config(sample__prompts=str(tmp_path / "prompts.txt")))
    encoded = encode_prompts(experiment, tmp_path)
    requests = settle_prompts(experiment, tmp_path, encoded)
    assert list(requests.captions) == PROMPTS
    np.testing.assert_array_equal(requests.cond["label"], [[3], [7]])
    (tmp_path / "prompts.txt").write_text("no digit at all")
    with pytest.raises(ValueError, match="sample.prompts: "):
        encode_prompts(experiment, tmp_path / "another")


def test_a_changed_file_is_said_and_a_damaged_one_refused(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    experiment = build_experiment(tiny_config(sample__prompts=str(prompts)))
    settle_prompts(experiment, tmp_path, encode_prompts(experiment, tmp_path))
    absl_logging.get_absl_logger().propagate = True
    for content, is_said in ((PROMPTS, False), (PROMPTS[:1], True)):
        caplog.clear()
        prompts.write_text("\n".join(content))
        assert encode_prompts(experiment, tmp_path) is None
        assert ("has changed; the run goes on" in caplog.text) is is_said
        assert list(settle_prompts(experiment, tmp_path, None).captions) == PROMPTS
    prompts.unlink()
    assert encode_prompts(experiment, tmp_path) is None
    (tmp_path / SHOWN_PROMPTS_FILE).write_bytes(b"not an archive")
    for read in (encode_prompts, lambda *args: settle_prompts(*args, None)):
        with pytest.raises(ValueError, match=rf"{SHOWN_PROMPTS_FILE} is damaged"):
            read(experiment, tmp_path)


def test_runs_without_captions_have_no_prompts(tmp_path: pathlib.Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS[0])

    @dataclasses.dataclass(frozen=True)
    class Silent:
        num_digits: int = 0
        encoders: Any = dataclasses.field(default_factory=lambda: {"text": {"name": "none"}})

    experiment = build_experiment(tiny_config(sample__prompts=str(tmp_path / "prompts.txt")))
    shapes = (dataclasses.replace(experiment.shapes[0], facts=Silent()),)
    silent = dataclasses.replace(experiment, shapes=shapes)
    with pytest.raises(ValueError, match=r"sample\.prompts='.*' must be '': the run is trained wi"):
        encode_prompts(silent, tmp_path)
