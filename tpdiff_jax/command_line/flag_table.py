"""The modes and the flags that each of them owns."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tpdiff_jax.command_line.exit_codes import ExitCode

MODES = {
    "train": "train to train.num_steps, resuming from the workdir's newest checkpoint; writes "
    "checkpoints/, metrics.jsonl, tensorboard/, samples/, results.json and report.html",
    "sample": "generate videos from a checkpoint of the workdir",
    "evaluate": "measure a checkpoint of the workdir: Moving Digits with the exact evaluators, "
    "prepared clips against held-out ones (--fvd_weights, --clip_folder)",
    "export": "write a checkpoint's averaged parameters as published weights, in --layout and "
    "--dtype: safetensors that diffusers and others read; low-rank changes are merged, or with "
    "--what=adapter written alone; --what=model_card adds what a model hub shows",
    "prepare": "turn a folder of videos and captions into clips to train from: --config is "
    "prepare, the shipped one, or a file like it, --workdir the folder to write; resumes",
    "plan": "compile every program of a config for the machine of --topology, which need not be "
    "here, and say what it would take: memory, FLOPs, messages, least times; writes "
    "plan_TOPOLOGY.json and .html. Compiles anew each time: kept programs for a TPU that is not "
    "here cannot be read back",
    "advise": "measure a sample of a config's clips, before any training, and recommend a temporal "
    "pyramid: strides, upsampling, windows, and network calls of each stage, with what they cost; "
    "with a workdir writes advise.json and .html",
    "doctor": "say which checkpoints of the workdir are intact, what is wrong with the others and "
    f"what training would resume from; code {ExitCode.BAD_INPUT.value} when none is intact",
    "replay": "take the logged step --step=N again from the checkpoint before it and compare its "
    "bits",
}
"""Mode -> what it does; the first is the default."""

DEVICE_MODES = ("train", "sample", "evaluate", "replay")
"""Modes that run on the devices of all processes, so that launchers may start them."""

NEED_A_RUN = ("sample", "evaluate", "export", "replay")
"""Modes on networks whose workdir is a run's already, unless a config says otherwise."""

_ALL = tuple(MODES)
_GENERATE = ("sample", "evaluate")


class Flag(NamedTuple):
    """One flag.

    Attributes:
        modes: those that own it.
        text: its help.
        kind: "text", "path" (no address such as gs://), "place" (a path or an address of a
            bucket), "cache" (a path, any address or a word), "integer", "number", "list" (joined
            by commas), "repeated", "switch" (--NAME and --noNAME) or "config".
        default: value where it is not given.
        allowed: its words, where they are few.
        least: smallest number.
        needed_by: modes that cannot do without.
    """

    modes: tuple[str, ...]
    text: str
    kind: str = "text"
    default: Any = None
    allowed: tuple[str, ...] = ()
    least: int | None = None
    needed_by: tuple[str, ...] = ()


FLAGS: Mapping[str, Flag] = {
    "mode": Flag(_ALL, "what to do", default="train", allowed=_ALL),
    "workdir": Flag(
        _ALL,
        "folder of the run, or gs://BUCKET/RUN or s3://BUCKET/RUN (requirements-bucket.txt)",
        "place",
        needed_by=tuple(mode for mode in _ALL if mode != "advise"),
    ),
    "config": Flag(
        ("train", "sample", "evaluate", "export", "prepare", "plan", "advise"),
        "config file, or the name of a shipped one; its fields are overridden by "
        "--config.GROUP.FIELD=VALUE. sample, evaluate and export read the workdir's own, and need "
        "one only for other fields of sample, eval, measure and mesh",
        "config",
        needed_by=("train", "prepare", "plan", "advise"),
    ),
    "step": Flag(
        (*_GENERATE, "export", "replay"),
        "checkpoint to read, default the newest; replay: the step to take again, numbered as in "
        "metrics.jsonl",
        "integer",
        least=0,
        needed_by=("replay",),
    ),
    "out": Flag((*_GENERATE, "export"), "output folder; default in the workdir", "path"),
    "num_videos": Flag(_GENERATE, "number of videos; default from the config", "integer", least=1),
    "seed": Flag(_GENERATE, "seed of the videos; default from the config", "integer", least=0),
    "steps_per_stage": Flag(_GENERATE, "solver steps of each stage, as in 10,10,10", "list"),
    "guidance_scale": Flag(_GENERATE, "guidance scale, one number or one per stage", "list"),
    "pyramid": Flag(
        _GENERATE,
        "sample through another pyramid than was trained, without training, a run of one stage or "
        "published weights: strides, as in 4,2,1, or fields, as in 'strides=(4,2,1) "
        "upsample=linear stage_fractions=(.5,.2,.3)'; see docs/configuration.md",
    ),
    "bucket": Flag(_GENERATE, "shape of clips, as in 16x96x160; default the data's first"),
    "data_folder": Flag(
        (*_GENERATE, "export", "replay"),
        "where the run's clips lie now, if they have moved; other clips are refused. Sampling and "
        "export do without clips",
        "place",
    ),
    "video_weights": Flag(
        _GENERATE,
        "folder of the autoencoder that the clips were prepared with, which turns latents into "
        "videos; default sample.video_weights",
        "path",
    ),
    "adapter": Flag(
        _GENERATE,
        "folder or .safetensors file of an adapter (LoRA) to add to the parameters, in any layout; "
        "see docs/adapters.md",
        "path",
    ),
    "adapter_scale": Flag(_GENERATE, "strength of --adapter, a number; default 1"),
    "labels": Flag(
        ("sample",),
        "one label a video, digits joined by '-', as in 3,7 or 3-7,0-1",
        "list",
        default=(),
    ),
    "caption": Flag(
        ("sample",),
        "a caption, as in 'the digit 3 moves fast to the left'; repeatable",
        "repeated",
        default=(),
    ),
    "prompts": Flag(("sample",), "file of captions, one a line", "path"),
    "videos_per_prompt": Flag(
        ("sample",),
        "videos of each caption of a text-conditioned run",
        "integer",
        default=1,
        least=1,
    ),
    "negative_prompt": Flag(
        ("sample",), "what guidance points away from; default the empty prompt", default=""
    ),
    "text_weights": Flag(
        ("sample",),
        "folder of the text encoder that the clips were prepared with",
        "path",
        default="",
    ),
    "naming": Flag(
        ("sample",),
        "vbench writes PROMPT-0.mp4 and so on, and no grid",
        default="numbers",
        allowed=("numbers", "vbench"),
    ),
    "fvd_weights": Flag(
        ("evaluate",), "I3D's weights for FVD, made by tpdiff_jax.evals.convert_i3d", "path"
    ),
    "clip_folder": Flag(("evaluate",), "a CLIP model for CLIPSIM", "path"),
    "real_clips": Flag(
        ("evaluate",),
        "folder of prepared clips to compare with, as MSR-VTT's; default what the run has held out",
        "path",
    ),
    "what": Flag(
        ("export",),
        "the whole network; the low-rank changes that were trained; or a folder ready for a model "
        "hub, with the network, a card, figures and samples (nothing is uploaded)",
        default="weights",
        allowed=("weights", "adapter", "model_card"),
    ),
    "licence": Flag(
        ("export",),
        "of --what=model_card: a hub's name of the licence; default apache-2.0, or other for a run "
        "that started from published weights",
    ),
    "layout": Flag(
        ("export",),
        "names and folders: of weights by network, default its first; of adapters peft (default), "
        "diffusers, native or comfyui",
    ),
    "dtype": Flag(
        ("export",),
        "stored type",
        default="float32",
        allowed=("float32", "bfloat16", "float16"),
    ),
    "engine": Flag(
        ("prepare",),
        "who makes the shards: this process, or a ray cluster (requirements-ray.txt)",
        default="local",
        allowed=("local", "ray"),
    ),
    "engine_address": Flag(
        ("prepare",),
        "the ray cluster, as in auto or HOST:PORT; default RAY_ADDRESS, or else a ray of this "
        "process with prepare.num_workers CPUs",
        default="",
    ),
    "trust_step": Flag(
        ("doctor",),
        "write the manifest of this checkpoint, which has none",
        "integer",
        least=0,
    ),
    "topology": Flag(
        ("plan",),
        "machine, as in v5p:4x4x4, v5e:2x4, v6e:4x4, cpu:8 or local",
        default="local",
    ),
    "frame_shape": Flag(
        ("plan",),
        "height, width and channels of a frame, or of frames whose number stands before them, "
        "where no data set is at hand; default the data set's",
        "list",
    ),
    "num_clips": Flag(
        ("plan",),
        "training clips to count chip-hours for",
        "integer",
        default=10_000_000,
        least=1,
    ),
    "largest_batch": Flag(
        ("plan",),
        "look for the largest batch that fits, by further compilations",
        "switch",
        default=True,
    ),
    "target_cost": Flag(
        ("advise",),
        "look for the least error at a cost of at most this share of ordinary diffusion's FLOPs "
        "(mean of training and sampling), as in 0.6; default the least cost of no larger error",
        "number",
        least=0,
    ),
    "target_debt": Flag(
        ("advise",),
        "largest information debt of a jump, nats per new frame, as in 0.5, in the place of the "
        "default limit of what a jump leaves to be seen",
        "number",
        least=0,
    ),
    "compilation_cache": Flag(
        DEVICE_MODES,
        "folder for compiled programs, so that a restart need not compile, or off; default "
        "JAX_COMPILATION_CACHE_DIR, or else tpdiff_jax in XDG_CACHE_HOME or ~/.cache",
        "cache",
    ),
    "coordinator_address": Flag(
        DEVICE_MODES, "HOST:PORT of process 0; needed where no cluster tells it"
    ),
    "num_processes": Flag(DEVICE_MODES, "processes of the run", "integer", least=1),
    "process_id": Flag(DEVICE_MODES, "number of this process, from 0", "integer", least=0),
}
RENAMED_FLAGS = {"checkpoint_step": "step"}
"""Flags of earlier versions -> what they are called now."""


def flags_of(mode: str) -> dict[str, Flag]:
    """Return the flags that a mode owns, by name."""
    return {name: flag for name, flag in FLAGS.items() if mode in flag.modes}


def list_flags(mode: str) -> str:
    """Return the names of the flags that a mode owns, for a message."""
    return ", ".join(f"--{name}" for name in flags_of(mode))
