"""Preparation with encoders on: killed inside of them, or made by several hosts, the same bytes."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.tiny_text_encoders import write_text_encoders
from tests.encoders.tiny_autoencoders import write_causal_video_vae
from tests.preparation.video_files import write_video
from tests.test_prepare import contents, make_spec
from tests.tiny import REPO
from tpdiff_jax.encoders import make_clip_encoder
from tpdiff_jax.preparation.clip_encoder import ClipEncoder
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.ray_shards import make_engine
from tpdiff_jax.prepare import prepare

NUM_VIDEOS = 5  # in shards of two
KILLS = (("encode", 3), ("record_to_bytes", 1), ("sha256_of_file", 0))
"""What the run dies in, and after how many calls: a clip being encoded, a shard half written, one
written without its note. One run after the other in the same folder.
"""
DYING = """
import json, os, pathlib, signal, sys
from tpdiff_jax.encoders import make_clip_encoder
from tpdiff_jax.prepare import prepare
from tpdiff_jax.preparation import shard_writer
from tpdiff_jax.preparation.prepare_spec import PrepareSpec

fields, folder, place, calls = sys.argv[1:]
spec, left = PrepareSpec(**json.loads(fields)), int(calls)

def dying(function):
    def call(*args):
        global left
        result = function(*args)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return result
    return call

encoder = make_clip_encoder(spec)
if place == "encode":
    encoder = encoder._replace(encode=dying(encoder.encode))
else:
    setattr(shard_writer, place, dying(getattr(shard_writer, place)))
prepare(spec, pathlib.Path(folder), encoder)
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PrepareSpec:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "videos").mkdir()
    captions = [f"stripes that count from {i}" for i in range(NUM_VIDEOS)]
    for i, caption in enumerate(captions):
        write_video(folder / "videos" / f"{i}.mp4", 40)
        (folder / "videos" / f"{i}.txt").write_text(caption)
    write_text_encoders(folder / "text", captions, width=16)
    write_causal_video_vae(folder / "vae")
    return make_spec(
        folder / "videos", num_frames=5, height=8, width=12, videos_per_shard=2,
        video_encoder="causal_video_vae", video_weights=str(folder / "vae"),
        text_encoder="t5_clip", text_weights=str(folder / "text"), text_tokens=7,
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder(spec: PrepareSpec) -> ClipEncoder:
    return make_clip_encoder(spec)


@pytest.fixture(scope="module")
def prepared(
    spec: PrepareSpec, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare(spec, folder, encoder) is not None
    return folder


def test_two_hosts_with_decoding_processes_write_what_one_writes(
    spec: PrepareSpec, encoder: ClipEncoder, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    hosts = [dataclasses.replace(spec, host_index=i, host_count=2, num_workers=i) for i in (0, 1)]
    assert prepare(hosts[1], tmp_path, encoder) is None
    assert prepare(hosts[0], tmp_path, encoder) is not None
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.slow
def test_encoders_in_the_tasks_of_a_ray_write_what_one_process_writes(
    spec: PrepareSpec, encoder: ClipEncoder, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("ray", reason="ray has no wheel for this Python or platform")
    two = dataclasses.replace(spec, num_workers=2)
    engine = make_engine(two, "ray", "", make_clip_encoder)
    assert prepare(two, tmp_path, encoder, engine) is not None
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.parametrize(
    ("field", "reason"),
    [("video_weights", "holds no .safetensors"), ("text_weights", "text_encoder_2 is no folder")],
)
def test_folders_of_other_weights_are_refused_by_field(
    spec: PrepareSpec, field: str, reason: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=rf"prepare\.{field}: .*{reason}"):
        make_clip_encoder(dataclasses.replace(spec, **{field: str(tmp_path)}))


@pytest.mark.slow
def test_killed_while_encoding_and_writing_it_ends_with_the_same_bytes(
    spec: PrepareSpec, encoder: ClipEncoder, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    fields = json.dumps(dataclasses.asdict(spec))
    for place, calls in KILLS:
        command = [sys.executable, "-c", DYING, fields, str(tmp_path), place, str(calls)]
        dead = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert dead.returncode == -signal.SIGKILL, (place, dead.stderr)
        assert not (tmp_path / "manifest.json").exists()
    assert prepare(spec, tmp_path, encoder) is not None
    assert contents(tmp_path) == contents(prepared)
