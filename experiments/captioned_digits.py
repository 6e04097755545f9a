"""Text to video end to end, small: does a network draw what its captions say?

    python -m experiments.captioned_digits --out=runs/captioned
    python -m experiments.captioned_digits --config=configs/captioned_digits_ddim.py \
      --out=runs/captioned_ddim --arms=pyramid,vanilla
    python -m experiments.captioned_digits --config=configs/captioned_digits_wan.py \
      --out=runs/captioned_wan --num_clips=2000 --arms=pyramid,vanilla --seeds=0,1,2

Moving Digits become MP4 files with captions in text files; language models of random weights with a
tokenizer of the captions' words stand for published text encoders, and an autoencoder trained on
their frames for a published one. Then the package's own path: --mode=prepare, training, sampling
from new captions, and the digit classifier of the evaluators on the frames. Chance is 0.1. The arm
`vanilla` trains for the FLOPs of the config as it stands. Finished steps are kept: the same command
goes on.

Options --config.* change the config. Needs torch and transformers.
Writes captioned_digits.json and captioned_digits.md. Exit codes: 0 done; 2 bad input.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs import prepare as prepare_config
from experiments.command_line import command_parser, output_folder, split_names, split_seeds
from experiments.grid.grids import VANILLA
from experiments.grid.overrides import merge_overrides, parse_overrides, read_config
from experiments.grid.plan import equal_flops_steps, mean_step_flops
from experiments.pages.markdown import number, table
from experiments.tiny_image_vae import write_image_vae
from experiments.tiny_text_encoders import (
    write_t5_encoder,
    write_text_encoders,
    write_umt5_encoder,
)
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.devices.facts import device_facts, package_versions
from tpdiff_jax.digits.figures import DIGIT_METRICS, evaluate_videos
from tpdiff_jax.encoders import make_clip_encoder
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.prepare_config import build_prepare
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.files.media import to_uint8, write_mp4
from tpdiff_jax.generation.from_checkpoint import OpenedRun, open_run
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.generation.sample_files import open_decoder
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.prepare import prepare
from tpdiff_jax.train import train

EXIT_BAD_INPUT = 2
ARMS: Mapping[str, Mapping[str, Any]] = {"pyramid": {}, "vanilla": VANILLA}
AUTOENCODER_CLIPS, AUTOENCODER_STEPS = 200, 600


class Material(NamedTuple):
    """What clips are made of.

    Attributes:
        frame_size: height and width in pixels.
        text_encoder: `prepare.text_encoder`.
        video_encoder: `prepare.video_encoder`.
    """

    frame_size: int
    text_encoder: str
    video_encoder: str


# A U-Net has no patches: it sees small frames, behind an autoencoder as it is meant to. Wan attends
# over all frames at once: four patches each keep a run at minutes.
MATERIALS = {
    "flux": Material(frame_size=32, text_encoder="t5_clip", video_encoder="pixels"),
    "animatediff": Material(frame_size=16, text_encoder="clip", video_encoder="image_vae"),
    "modelscope": Material(frame_size=16, text_encoder="clip", video_encoder="image_vae"),
    "open_sora": Material(frame_size=16, text_encoder="t5", video_encoder="pixels"),
    "wan": Material(frame_size=16, text_encoder="umt5", video_encoder="pixels"),
}


WRITERS = {
    "clip": write_text_encoders,
    "t5": write_t5_encoder,
    "t5_clip": write_text_encoders,
    "umt5": write_umt5_encoder,
}
"""What writes the folder of each text encoder."""


def write_videos(folder: pathlib.Path, digits: MovingDigitsSpec, count: int) -> list[str]:
    """Write training clips as MP4 files with their captions beside them; return the captions."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for index in range(count):
        clip = digits.clip("train", 0, index)
        captions.append(clip["caption"])
        text = folder / f"{index:05d}.txt"
        if not text.is_file():  # written last
            write_mp4(folder / f"{index:05d}.mp4", to_uint8(clip["video"]), min_side=0)
            write_durably(text, clip["caption"])
    return captions


def write_encoders(
    out: pathlib.Path, digits: MovingDigitsSpec, captions: Sequence[str], model: ConfigDict
) -> None:
    """Write the text encoders and, where clips are latents, the autoencoder, once."""
    material = MATERIALS[model.name]
    if not (out / "text_encoders").is_dir():
        write = WRITERS[material.text_encoder]
        write(out / "text_encoders", captions, width=model.text_dim)
    if material.video_encoder == "pixels" or (out / "image_vae").is_dir():
        return
    clips = [digits.clip("train", 0, i)["video"] for i in range(AUTOENCODER_CLIPS)]
    frames = np.concatenate(clips).repeat(3, axis=-1)
    write_image_vae(out / "image_vae", frames, AUTOENCODER_STEPS)


def prepare_clips(out: pathlib.Path, digits: MovingDigitsSpec, model: ConfigDict) -> None:
    """Run the preparation of `out`/videos with the encoders of `write_encoders`."""
    config, material = prepare_config.get_config(), MATERIALS[model.name]
    config.prepare.update(
        {
            "source": str(out / "videos"),
            "num_frames": digits.num_frames,
            "fps": digits.fps,
            "height": digits.frame_size,
            "width": digits.frame_size,
            "video_encoder": material.video_encoder,
            "video_weights": str(out / "image_vae"),
            "text_encoder": material.text_encoder,
            "text_weights": str(out / "text_encoders"),
            "text_tokens": model.num_text_tokens,
            "test_share": 0.01,
        }
    )
    spec = build_prepare(config)
    prepare(spec, out / "clips", make_clip_encoder(spec))


def arm_overrides(config_file: str, base: Mapping[str, str], arm: str) -> dict[str, str]:
    """Return the fields of an arm that trains for the FLOPs of the config with `base`.

    Raises:
        ValueError: for a config that cannot be built.
    """
    own = merge_overrides(base, ARMS[arm])
    reference, experiment = (
        build_experiment(read_config(config_file, fields)) for fields in (base, own)
    )
    flops = mean_step_flops(reference), mean_step_flops(experiment)
    num_steps = equal_flops_steps(reference.train.num_steps, *flops)
    return merge_overrides(own, {"train.num_steps": num_steps})


def measure(run: OpenedRun, digits: MovingDigitsSpec, out: pathlib.Path, count: int) -> Any:
    """Sample the captions of held-out clips and look for their digits."""
    clips = [digits.clip("test", 0, index) for index in range(2 * count)]
    captions = [clip["caption"] for clip in clips[:count]]
    flags = SampleFlags(captions=captions, text_weights=str(out / "text_encoders"))
    requests, _, null_cond = read_requests(run.experiment, flags, count)
    spec = run.experiment.sample
    videos = Sampler(run.experiment, null_cond=null_cond)(
        run.params, requests.cond, seed=spec.seed, batch_size=spec.batch_size
    )
    decode = open_decoder(run.experiment.dataset, str(out / "image_vae"))
    assert decode is not None, "weights are given"
    grey = decode(videos).mean(axis=-1, keepdims=True)
    labels = digits.captions_to_labels(captions)
    real = np.stack([clip["video"] for clip in clips[count:]])
    figures = evaluate_videos(grey, labels, real_videos=real, world=digits.world)
    shuffled = evaluate_videos(
        grey, np.roll(labels, 1, axis=0), real_videos=real, world=digits.world
    )
    return {
        "metrics": figures,
        "label_accuracy_of_the_next_caption": shuffled["label_accuracy"],
        "share_of_equal_neighbours": float(np.mean(labels == np.roll(labels, 1, axis=0))),
    }


def write_results(out: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write captioned_digits.json and its table."""
    write_json(out / "captioned_digits.json", dict(content))
    header = ("arm", "seed", "steps", "TFLOP", "label accuracy", "of the next caption's label")
    rows = [
        (
            run["arm"],
            str(run["seed"]),
            str(run["steps"]),
            number(run["train_flops"] / 1e12),
            number(run["metrics"]["label_accuracy"]),
            number(run["label_accuracy_of_the_next_caption"]),
        )
        for run in content["runs"]
    ]
    write_durably(out / "captioned_digits.md", table(header, rows) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Make, prepare, train, sample, measure; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    out, runs = options.out, []
    try:
        seeds = split_seeds(options.seeds)
        base = merge_overrides(parse_overrides(rest), {"data.folder": str(out / "clips")})
        model = read_config(options.config, base).model
        if unknown := set(split_names(options.arms)) - set(ARMS):
            raise ValueError(f"--arms: no {', '.join(sorted(unknown))}; there are {list(ARMS)}")
        digits = MovingDigitsSpec(frame_size=MATERIALS[model.name].frame_size)
        captions = write_videos(out / "videos", digits, options.num_clips)
        write_encoders(out, digits, captions, model)
        prepare_clips(out, digits, model)
        for seed in seeds:
            for arm in split_names(options.arms):
                fields = arm_overrides(options.config, base, arm) | {"train.seed": str(seed)}
                folder = out / "runs" / f"{arm}_seed_{seed}"
                train(build_experiment(read_config(options.config, fields)), folder)
                run = open_run(folder)
                spent = run.step * mean_step_flops(run.experiment)
                facts = {"arm": arm, "seed": seed, "steps": run.step, "train_flops": spent}
                runs.append(facts | measure(run, digits, out, options.num_videos))
                print(f"{arm}: label accuracy {runs[-1]['metrics']['label_accuracy']:.3f}")
    except ValueError as error:
        print(f"captioned_digits: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    facts = {"config": options.config, "overrides": base, "num_clips": options.num_clips}
    facts |= {
        "num_videos": options.num_videos,
        "device": device_facts(),
        "versions": package_versions(),
    }
    facts |= {"metric_info": {metric.name: metric._asdict() for metric in DIGIT_METRICS}}
    write_results(out, {**facts, "runs": runs})
    return 0


def _parser() -> Any:
    parser = command_parser("experiments.captioned_digits", __doc__)
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--config", default="configs/captioned_digits.py", help="config file")
    parser.add_argument("--arms", default="pyramid", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", default="0", help="values of train.seed")
    parser.add_argument("--num_clips", type=int, default=4000, help="training clips")
    parser.add_argument("--num_videos", type=int, default=64, help="videos to measure")
    return parser


if __name__ == "__main__":
    sys.exit(main())
