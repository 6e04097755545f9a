"""Command line: `python -m tpdiff_jax.main --config=configs/flow.py --workdir=runs/flow`.

Modes:
  train     train to train.num_steps, resuming from the workdir's newest checkpoint; writes
            checkpoints/, metrics.jsonl, tensorboard/, samples/, results.json and report.html.
  sample    generate videos from a checkpoint of the workdir (no --config needed).
  evaluate  measure a checkpoint of the workdir: Moving Digits with the exact evaluators, prepared
            clips against held-out ones (--fvd_weights, --clip_folder).
  doctor    say which checkpoints of the workdir are intact, what is wrong with the others and what
            training would resume from; code 2 when none is intact. Needs no device, no --config.
  plan      compile every program of a config for the machine of --topology, which need not be
            here, and say what it would take: memory, FLOPs, messages, least times; writes
            plan_TOPOLOGY.json and .html.
  prepare   turn a folder of videos and captions into clips to train from: --config is
            configs/prepare.py or one like it, --workdir the folder to write. Resumes.
  export    write a checkpoint's averaged parameters as published weights, in --layout and --dtype:
            safetensors that diffusers and others read. Low-rank changes are merged.
  replay    take the logged step --step=N again from the checkpoint before it and compare its bits.

Every config field can be overridden: --config.train.num_steps=100,
--config.pyramid.frame_strides="(1,)" (vanilla diffusion, the pyramid's twin).
A config file is Python code and is run; only use files you trust.

Exit codes: 0 done; 2 bad input (one line says what); 3 stopped by SIGTERM with a checkpoint saved
(the same command goes on from there); 4 too many bad steps in a row (bad_steps/ holds what is
needed to repeat them); 5 what was planned does not fit its machine; 6 a checkpoint could not be
saved, as on a full disk (make room; the same command goes on from the last one); 7 too many bad
clips or table rows; 8 a replayed step differs from the logged one; 130 stopped by Ctrl-C (the same
command goes on from the newest checkpoint).
"""

import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from tpdiff_jax.run_log.console import set_up_console

EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 3
EXIT_BAD_STEPS = 4
EXIT_DOES_NOT_FIT = 5
EXIT_SAVE_FAILED = 6
EXIT_TOO_MANY_BAD_CLIPS = 7
EXIT_DIFFERS = 8
EXIT_INTERRUPTED = 130

# A path on the command line that is something else, or not ours; other OSErrors may pass.
_WRONG_PATHS = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

_STARTED_AT = time.time()  # before the slow imports: they are part of what a restart costs

MODES = ("train", "sample", "evaluate", "export", "doctor", "plan", "prepare", "replay")
DEVICE_MODES = ("train", "sample", "evaluate", "replay")  # on the devices of all processes

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; required by --mode=train, plan and prepare.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_STEP = flags.DEFINE_integer(
    "checkpoint_step", None, "sample, evaluate, export: checkpoint to read; default the newest."
)
_REPLAY_STEP = flags.DEFINE_integer(
    "step", None, "replay: the step to take again, numbered as in metrics.jsonl."
)
_NUM_VIDEOS = flags.DEFINE_integer(
    "num_videos", None, "sample, evaluate: number of videos; default from the config.", 1
)
_LABELS = flags.DEFINE_list(
    "labels", [], "sample: one label a video, digits joined by '-', as in 3,7 or 3-7,0-1."
)
_CAPTIONS = flags.DEFINE_multi_string(
    "caption", [], "sample: a caption, as in 'the digit 3 moves fast to the left'; repeatable."
)
_PROMPTS = flags.DEFINE_string("prompts", None, "sample: file of captions, one a line.")
_VIDEOS_PER_PROMPT = flags.DEFINE_integer(
    "videos_per_prompt", 1, "sample: videos of each caption of a text-conditioned run.", 1
)
_NEGATIVE_PROMPT = flags.DEFINE_string(
    "negative_prompt", "", "sample: what guidance points away from; default the empty prompt."
)
_TEXT_WEIGHTS = flags.DEFINE_string(
    "text_weights", "", "sample: folder of the text encoder that the clips were prepared with."
)
_VIDEO_WEIGHTS = flags.DEFINE_string(
    "video_weights",
    None,
    "sample, evaluate: folder of the autoencoder that the clips were prepared with, which turns "
    "latents into videos; default sample.video_weights.",
)
_BUCKET = flags.DEFINE_string(
    "bucket", None, "sample, evaluate: shape of clips, as in 16x96x160; default the data's first."
)
_NAMING = flags.DEFINE_enum(
    "naming", "numbers", ("numbers", "vbench"), "sample: vbench writes PROMPT-0.mp4 and so on."
)
_SEED = flags.DEFINE_integer("seed", None, "sample, evaluate: seed; default from the config.", 0)
_STEPS_PER_STAGE = flags.DEFINE_list(
    "steps_per_stage", None, "sample, evaluate: solver steps of each stage, as in 10,10,10."
)
_GUIDANCE = flags.DEFINE_list(
    "guidance_scale", None, "sample, evaluate: guidance scale, one number or one per stage."
)
_FVD_WEIGHTS = flags.DEFINE_string(
    "fvd_weights", None, "evaluate: I3D's weights for FVD, made by tpdiff_jax.evals.convert_i3d."
)
_CLIP_FOLDER = flags.DEFINE_string("clip_folder", None, "evaluate: a CLIP model for CLIPSIM.")
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", None, "Folder for compiled programs, so that a restart need not compile."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0; needed where no cluster tells it."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.", 1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", 0)
_OUT = flags.DEFINE_string(
    "out", None, "sample, evaluate, export: output folder; default in the workdir."
)
_LAYOUT = flags.DEFINE_string(
    "layout", None, "export: names and folders, by network; default the network's first."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ("float32", "bfloat16", "float16"), "export: stored type."
)
_TRUST_STEP = flags.DEFINE_integer(
    "trust_step", None, "doctor: write the manifest of this checkpoint, which has none.", 0
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", "local", "plan: machine, as in v5p:4x4x4, v5e:2x4, v6e:4x4, cpu:8 or local."
)
_FRAME_SHAPE = flags.DEFINE_list(
    "frame_shape",
    None,
    "plan: height, width and channels of a frame, or of frames whose number stands before them, "
    "where no data set is at hand; default the data set's.",
)
_NUM_CLIPS = flags.DEFINE_integer(
    "num_clips", 10_000_000, "plan: training clips to count chip-hours for.", 1
)
_LARGEST_BATCH = flags.DEFINE_bool(
    "largest_batch", True, "plan: look for the largest batch that fits, by further compilations."
)


def main(argv: Sequence[str]) -> None:
    """Run one mode; bad input ends with one line and exit code 2."""
    del argv
    # Imported here: --help and a wrong flag should not wait for the whole stack.
    from tpdiff_jax import train as train_lib
    from tpdiff_jax.infra.checkpoints import SaveError
    from tpdiff_jax.infra.guard import TooManyBadSteps
    from tpdiff_jax.planning.program_cost import DoesNotFit
    from tpdiff_jax.videos.bad_clips import TooManyBadClipsError

    try:
        run_mode()
    except train_lib.Preempted as stop:
        logging.warning("%s", stop)
        sys.exit(EXIT_PREEMPTED)
    except TooManyBadSteps as stop:
        fail(stop, EXIT_BAD_STEPS)
    except SaveError as error:
        fail(error, EXIT_SAVE_FAILED)
    except DoesNotFit as refusal:
        fail(refusal, EXIT_DOES_NOT_FIT)
    except TooManyBadClipsError as error:
        fail(error, EXIT_TOO_MANY_BAD_CLIPS)
    except (ValueError, *_WRONG_PATHS) as error:
        fail(error)
    except KeyboardInterrupt:
        logging.warning("interrupted; training goes on from its newest checkpoint when asked again")
        sys.exit(EXIT_INTERRUPTED)


def fail(error: Exception, code: int = EXIT_BAD_INPUT) -> None:
    """Print one clear message and leave."""
    logging.debug("leaving", exc_info=error)
    print(f"tpdiff_jax: error: {error}", file=sys.stderr)
    sys.exit(code)


def run_mode() -> None:
    """Check the flags, build the experiment, hand over to the mode."""
    from tpdiff_jax import doctor, plan, prepare, train
    from tpdiff_jax.build import build_experiment, build_prepare
    from tpdiff_jax.encoders import make_clip_encoder
    from tpdiff_jax.training_folder import only_trainer

    if not _WORKDIR.value:
        raise ValueError("--workdir is required")
    workdir = pathlib.Path(_WORKDIR.value)
    if _MODE.value in ("train", "plan", "prepare") and _CONFIG.value is None:
        raise ValueError(f"--config is required by --mode={_MODE.value}")
    if _MODE.value in DEVICE_MODES:
        set_up_jax()
    if _MODE.value == "train":
        experiment = build_experiment(_CONFIG.value)
        with only_trainer(workdir):
            train.train(experiment, workdir, started_at=_STARTED_AT)
    elif _MODE.value == "replay":
        replay_step(workdir)
    elif _MODE.value == "doctor":
        if _TRUST_STEP.value is not None:
            doctor.trust(workdir, _TRUST_STEP.value)
        doctor.examine(workdir)
    elif _MODE.value == "plan":
        plan.plan(_CONFIG.value, workdir, plan_flags())
    elif _MODE.value == "prepare":
        spec = build_prepare(_CONFIG.value)
        prepare.prepare(spec, workdir, make_clip_encoder(spec))
    else:
        use_checkpoint(workdir)


def use_checkpoint(workdir: pathlib.Path) -> None:
    """Sample from a checkpoint, evaluate or export it."""
    from tpdiff_jax import evaluate, export, sample
    from tpdiff_jax.from_checkpoint import GenerateFlags, open_run

    run = open_run(
        workdir,
        config=_CONFIG.value,
        step=_STEP.value,
        overrides=GenerateFlags(
            num_videos=_NUM_VIDEOS.value,
            seed=_SEED.value,
            steps_per_stage=_STEPS_PER_STAGE.value,
            guidance_scale=_GUIDANCE.value,
            video_weights=_VIDEO_WEIGHTS.value,
            fvd_weights=_FVD_WEIGHTS.value,
            clip_folder=_CLIP_FOLDER.value,
            bucket=_BUCKET.value,
        ),
    )
    out = pathlib.Path(_OUT.value) if _OUT.value else None
    if _MODE.value == "sample":
        sample.sample_run(run, sample_flags(), out)
    elif _MODE.value == "export":
        export.export_run(run, _LAYOUT.value, _DTYPE.value, out)
    else:
        evaluate.evaluate_run(run, out)


def sample_flags() -> Any:
    """Return the flags of --mode=sample."""
    from tpdiff_jax.prompts import SampleFlags

    return SampleFlags(
        labels=_LABELS.value,
        captions=_CAPTIONS.value,
        prompts=_PROMPTS.value,
        videos_per_prompt=_VIDEOS_PER_PROMPT.value,
        negative_prompt=_NEGATIVE_PROMPT.value,
        text_weights=_TEXT_WEIGHTS.value,
        naming=_NAMING.value,
    )


def replay_step(workdir: pathlib.Path) -> None:
    """Take --step again; leave with a code of its own when it differs."""
    from tpdiff_jax import replay

    if _REPLAY_STEP.value is None:
        raise ValueError("--step is required by --mode=replay")
    if not replay.replay(workdir, _REPLAY_STEP.value):
        sys.exit(EXIT_DIFFERS)


def plan_flags() -> Any:
    """Return the flags of --mode=plan."""
    from tpdiff_jax.plan import PlanFlags

    shape = _FRAME_SHAPE.value
    if shape is not None and not all(text.isdigit() for text in shape):
        raise ValueError(f"--frame_shape={','.join(shape)} must be numbers, as in 48,80,16")
    return PlanFlags(
        topology=_TOPOLOGY.value,
        frame_shape=None if shape is None else tuple(map(int, shape)),
        num_clips=_NUM_CLIPS.value,
        search_batch=_LARGEST_BATCH.value,
    )


def set_up_jax() -> None:
    """Join the run's other processes and open the compilation cache, before devices are asked for.

    Raises:
        ValueError: for flags that do not fit together.
    """
    import jax

    from tpdiff_jax.infra.processes import ProcessFlags, join_processes

    if _COMPILATION_CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _COMPILATION_CACHE.value)
    join_processes(ProcessFlags(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value))


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse flags; any mistake in them, config overrides included, is bad input.

    ml_collections raises many types here: AttributeError for an unknown field, TypeError and
    ValueError for a value of the wrong type, IOError for a missing file.
    """
    try:
        rest = flags.FLAGS(list(argv))
        check_config_file()
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(error)
        raise


def check_config_file() -> None:
    """Raise ValueError when --config names no file; ml_collections would say so much later."""
    path = config_flags.get_config_filename(flags.FLAGS["config"]) if _CONFIG.present else None
    if path is not None and not pathlib.Path(path).is_file():
        raise ValueError(f"--config={path} is not a file")


def print_help_when_asked(argv: Sequence[str]) -> None:
    """Show modes and flags for --help; absl's own shows every flag of every library."""
    if any(arg in ("--help", "-h", "-help") for arg in argv[1:]):
        try:
            print(__doc__)
            print(flags.FLAGS.module_help(sys.modules["__main__"]), flush=True)
        except BrokenPipeError:  # read by `head`; Python would flush once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def run() -> None:
    """Entry point."""
    print_help_when_asked(sys.argv)
    set_up_console()
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
