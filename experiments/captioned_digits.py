"""Text to video end to end, small: does a Flux transformer draw what its captions say?

    python -m experiments.captioned_digits --out=runs/captioned

Moving Digits become MP4 files with captions in text files; a T5 and a CLIP of random weights with a
tokenizer of the captions' words stand for published text encoders. Then the package's own path:
--mode=prepare, training with the pyramid, sampling from new captions, and the digit classifier of
the evaluators on the frames. Chance is 0.1. Finished steps are kept: the same command goes on.

Options --config.* change configs/captioned_digits.py. Needs torch and transformers.
Writes captioned_digits.json. Exit codes: 0 done; 2 bad input.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs import prepare as prepare_config
from experiments.command_line import command_parser
from experiments.overrides import merge_overrides, parse_overrides, read_config
from experiments.tiny_text_encoders import write_text_encoders
from tpdiff_jax.build import build_experiment, build_prepare
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.encoders import make_clip_encoder
from tpdiff_jax.evals import METRICS, evaluate_videos
from tpdiff_jax.from_checkpoint import Run, open_run
from tpdiff_jax.infra.media import to_uint8, write_mp4
from tpdiff_jax.prepare import prepare
from tpdiff_jax.prompts import SampleFlags, read_requests
from tpdiff_jax.results import device_facts, versions, write_json
from tpdiff_jax.sample import Sampler
from tpdiff_jax.train import train

EXIT_BAD_INPUT = 2
CONFIG_FILE = "configs/captioned_digits.py"


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
            text.write_text(clip["caption"])
    return captions


def prepare_clips(out: pathlib.Path, digits: MovingDigitsSpec, num_tokens: int) -> None:
    """Run the preparation of `out`/videos with the text encoders of `out`/text_encoders."""
    config = prepare_config.get_config()
    config.prepare.update(
        {
            "source": str(out / "videos"),
            "num_frames": digits.num_frames,
            "fps": digits.fps,
            "height": digits.frame_size,
            "width": digits.frame_size,
            "text_encoder": "t5_clip",
            "text_weights": str(out / "text_encoders"),
            "text_tokens": num_tokens,
            "test_share": 0.01,
        }
    )
    spec = build_prepare(config)
    prepare(spec, out / "clips", make_clip_encoder(spec))


def measure(run: Run, digits: MovingDigitsSpec, encoders: pathlib.Path, count: int) -> Any:
    """Sample the captions of held-out clips and look for their digits."""
    clips = [digits.clip("test", 0, index) for index in range(2 * count)]
    captions = [clip["caption"] for clip in clips[:count]]
    flags = SampleFlags(captions=captions, text_weights=str(encoders))
    requests, _, null_cond = read_requests(run.experiment, flags, count)
    spec = run.experiment.sample
    videos = Sampler(run.experiment, null_cond=null_cond)(
        run.params, requests.cond, seed=spec.seed, batch_size=spec.batch_size
    )
    grey = videos.mean(axis=-1, keepdims=True)
    labels = digits.captions_to_labels(captions)
    real = np.stack([clip["video"] for clip in clips[count:]])
    figures = evaluate_videos(grey, labels, real_videos=real, world=digits.world)
    shuffled = evaluate_videos(
        grey, np.roll(labels, 1, axis=0), real_videos=real, world=digits.world
    )
    return {
        "metrics": figures,
        "metric_info": {metric.name: metric._asdict() for metric in METRICS},
        "label_accuracy_of_the_next_caption": shuffled["label_accuracy"],
        "share_of_equal_neighbours": float(np.mean(labels == np.roll(labels, 1, axis=0))),
        "num_videos": count,
        "captions": captions[:16],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make, prepare, train, sample, measure; return the exit code."""
    options, overrides = _parser().parse_known_args(argv)
    out, digits = options.out, MovingDigitsSpec()
    try:
        fields = {"data.folder": str(out / "clips")}
        config = read_config(CONFIG_FILE, merge_overrides(parse_overrides(overrides), fields))
        captions = write_videos(out / "videos", digits, options.num_clips)
        if not (out / "text_encoders").is_dir():
            write_text_encoders(out / "text_encoders", captions, width=config.model.text_dim)
        prepare_clips(out, digits, config.model.num_text_tokens)
        train(build_experiment(config), out / "run")
        run = open_run(out / "run")
        results = measure(run, digits, out / "text_encoders", options.num_videos)
    except ValueError as error:
        print(f"captioned_digits: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    results |= {"steps": run.step, "num_clips": options.num_clips}
    results |= {"device": device_facts(), "versions": versions()}
    write_json(out / "captioned_digits.json", results)
    print(f"label accuracy {results['metrics']['label_accuracy']:.3f}, chance 0.1")
    return 0


def _parser() -> Any:
    parser = command_parser("experiments.captioned_digits", __doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="output folder")
    parser.add_argument("--num_clips", type=int, default=4000, help="training clips")
    parser.add_argument("--num_videos", type=int, default=64, help="videos to measure")
    return parser


if __name__ == "__main__":
    sys.exit(main())
