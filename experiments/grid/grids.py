"""Grids: which runs are compared. A grid is a name, its arms and the arm each is compared with.

An arm is a config file and the fields it changes; every arm trains for as many steps as cost the
training FLOPs of the grid's reference arm. Adding an experiment is adding an entry to `GRIDS`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from experiments.grid.arms import Arm, Grid, ablation

# `frame_strides=(1,)` alone makes the twin; the rest undoes what only fits several stages.
VANILLA: dict[str, Any] = {
    "pyramid.frame_strides": (1,),
    "pyramid.stage_fractions": (),
    "train.stage_probs": (),
    "sample.steps_per_stage": (),
    "sample.guidance_per_stage": (),
    "sample.grid_power": (1.0,),
    "sample.time_grids": (),
}
# Written out, so that an ablation keeps its meaning when the defaults of the config move.
ABLATION_BASE: dict[str, Any] = {
    "path.prediction": "data",
    "pyramid.frame_strides": (4, 2, 1),
    "pyramid.downsample": "stride",
    "pyramid.upsample": "nearest",
    "pyramid.frame_positions": "consistent",
    "pyramid.target_unit": "time",
    "pyramid.time_conditioning": "noise_time",
    "alignment.mode": "nearest",
    "alignment.level": "coarsest",
}
_CHOICES: dict[str, dict[str, Any]] = {
    "alignment_none": {"alignment.mode": "none"},
    "alignment_hungarian": {"alignment.mode": "hungarian"},
    "alignment_candidates": {"alignment.mode": "candidates"},
    "level_stage": {"alignment.level": "stage"},
    "paper_alignment": {"alignment.mode": "hungarian", "alignment.level": "stage"},
    "positions_naive": {"pyramid.frame_positions": "naive"},
    "velocity": {"path.prediction": "velocity"},
    "velocity_stage_unit": {"path.prediction": "velocity", "pyramid.target_unit": "stage"},
    "downsample_mean": {"pyramid.downsample": "mean"},
    "upsample_linear": {"pyramid.upsample": "linear"},
    "time_stage_slices": {"pyramid.time_conditioning": "stage_slices"},
}
# Every point of a curve is then what a run of that length would have reached.
CONSTANT_RATE: dict[str, Any] = {"optim.schedule": "constant"}
NATURAL_BASE: dict[str, Any] = ABLATION_BASE | {
    "data.speed_stratum": "natural",
    "pyramid.upsample": "linear",
}
DCT: dict[str, Any] = {"pyramid.downsample": "dct", "pyramid.upsample": "dct"}
_JUMPS: dict[str, dict[str, Any]] = {
    "overlap": {"pyramid.overlap": 1.5},
    "coarse_noise": {"pyramid.coarse_noise": 0.1},
}
DIGITS_MEAN = -0.962  # of all pixels of the natural Moving Digits, 1,000 clips
DDIM_BASE: dict[str, Any] = {
    "path.betas": "scaled_linear",
    "path.zero_terminal_snr": True,
    "path.final_alpha": "one",
}


def _main() -> Grid:
    arms = []
    for path in ("flow", "ddim"):
        config, vanilla = f"configs/{path}.py", f"{path}_vanilla"
        arms.append(Arm(name=f"{path}_pyramid", overrides={}, config=config, baseline=vanilla))
        arms.append(Arm(name=vanilla, overrides=VANILLA, config=config))
    return Grid(arms=tuple(arms), reference="flow_pyramid")


def _factors() -> Grid:
    """Pyramid alone, alignment alone, both, against neither."""
    none, nearest = {"alignment.mode": "none"}, {"alignment.mode": "nearest"}
    arms = (
        Arm(name="neither", overrides=VANILLA | none),
        Arm(name="alignment", overrides=VANILLA | nearest, baseline="neither"),
        Arm(name="pyramid", overrides=none, baseline="neither"),
        Arm(name="both", overrides=nearest, baseline="neither"),
    )
    return Grid(arms=arms, reference="both")


def _convergence() -> Grid:
    """Flow and DDIM: pyramid alone, alignment alone and both (`tpdiff`), against neither."""
    none, nearest = {"alignment.mode": "none"}, {"alignment.mode": "nearest"}
    changes: dict[str, dict[str, Any]] = {
        "tpdiff": nearest,
        "pyramid": none,
        "alignment": VANILLA | nearest,
    }
    return _against_vanilla(changes, CONSTANT_RATE)


def _upsampling() -> dict[str, dict[str, Any]]:
    """Each way to upsample; `marginal` is the DCT one, trained as a vanilla network is."""
    return {
        "nearest": {"pyramid.upsample": "nearest"},
        "linear": {"pyramid.upsample": "linear"},
        "dct": DCT,
        "insert": {"pyramid.upsample": "insert", "pyramid.data_mean": DIGITS_MEAN},
        "marginal": DCT | {"pyramid.line": "marginal"},
    }


def _natural() -> Grid:
    """What may help where frames resemble their neighbours; linear is the default."""
    linear: dict[str, Any] = {"pyramid.upsample": "linear"}
    alone: dict[str, dict[str, Any]] = _JUMPS | {
        "coarse_often": {"train.stage_probs": (0.5, 0.25, 0.25)},
        "tokens": {"train.batch_per_stage": "tokens"},
        "stride_8": {"pyramid.frame_strides": (8, 4, 2, 1)},
    }
    changes = _upsampling() | {name: linear | change for name, change in alone.items()}
    return _against_vanilla(changes, {}, _advised())


def _natural_ablations() -> Grid:
    """Each choice by itself, where frames resemble their neighbours."""
    known = _CHOICES | _upsampling() | _JUMPS
    known["upsample_nearest"] = known["nearest"]
    known["weights_equal"] = {"pyramid.stage_weighting": "equal"}
    names = (
        *("upsample_nearest", "velocity", "alignment_none", "downsample_mean", "overlap"),
        *("coarse_noise", "weights_equal", "positions_naive", "time_stage_slices"),
        *("paper_alignment", "insert", "dct", "marginal"),
    )
    return ablation(NATURAL_BASE, {name: known[name] for name in names}, {"marginal": "dct"})


def _advised() -> dict[str, dict[str, dict[str, Any]]]:
    """What --mode=advise says of the strata, on each path: strides, windows and calls.

    `advised` is for natural speeds, `two_stages` and `four_stages` are for slow ones, `late_jumps`
    and `wide_jumps` for fast ones: in each pair the first within what copies of frames can show.
    """
    three, two = (4, 2, 1), (2, 1)
    said: dict[str, dict[str, tuple[tuple[float, ...], ...]]] = {
        "flow": {
            "advised": (three, (0.5, 0.2, 0.3), (15, 5, 10)),
            "two_stages": (two, (0.4, 0.6), (15, 15)),
            "four_stages": ((8, 4, 2, 1), (0.2, 0.1, 0.1, 0.6), (5, 5, 5, 15)),
            "late_jumps": (three, (0.1, 0.1, 0.8), (5, 5, 20)),
            "wide_jumps": ((8, 4, 1), (0.2, 0.1, 0.7), (5, 5, 20)),
        },
        "ddim": {
            "advised": (three, (0.6, 0.3, 0.1), (20, 5, 5)),
            "two_stages": (two, (0.6, 0.4), (20, 10)),
            "late_jumps": (three, (0.3, 0.1, 0.6), (10, 5, 15)),
        },
    }
    fields = ("pyramid.frame_strides", "pyramid.stage_fractions", "sample.steps_per_stage")
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for path, settings in said.items():
        arms[path] = {}
        for arm, values in settings.items():
            arms[path][arm] = DCT | dict(zip(fields, values, strict=True))
            arms[path][f"{arm}_by_window"] = arms[path][arm] | {"train.stage_probs": values[1]}
    return arms


def _against_vanilla(
    changes: Mapping[str, Mapping[str, Any]],
    everywhere: Mapping[str, Any],
    of_path: Mapping[str, Mapping[str, Mapping[str, Any]]] = {},
) -> Grid:
    """Changes of the flow and the DDIM config, against vanilla diffusion without alignment.

    `of_path` has further ones of one of the two, by its name.
    """
    vanilla = {"vanilla": VANILLA | {"alignment.mode": "none"}}
    arms = [
        Arm(
            name=f"{path}_{name}",
            overrides={**everywhere, **change},
            config=f"configs/{path}.py",
            baseline=None if name == "vanilla" else f"{path}_vanilla",
        )
        for path in ("flow", "ddim")
        for name, change in {**vanilla, **changes, **of_path.get(path, {})}.items()
    ]
    return Grid(arms=tuple(arms), reference="flow_vanilla")


def _stages(strides: tuple[int, ...], shares: tuple[int, ...] = ()) -> dict[str, Any]:
    """Fields of a pyramid whose windows, training steps and solver steps have these shares."""
    shares = shares or (1,) * len(strides)
    fractions = tuple(share / sum(shares) for share in shares)
    # The first stages take what is left over: 15, 8, 7 of 30 steps for 2-1-1.
    bounds = [-(-30 * sum(shares[:i]) // sum(shares)) for i in range(len(shares) + 1)]
    return {
        "pyramid.frame_strides": strides,
        "pyramid.stage_fractions": fractions,
        "train.stage_probs": fractions,
        "sample.num_steps": 30,
        "sample.steps_per_stage": tuple(b - a for a, b in itertools.pairwise(bounds)),
    }


def _pyramid_shapes() -> Grid:
    """The ablations of the paper's ICLR version, each against the vanilla twin.

    Shares are those of the stages, coarsest first; `factors_4_2` multiplies the frame rate by 4
    and then by 2.
    """
    nearest = {"alignment.mode": "nearest"}
    changes = {
        "stages_3": _stages((4, 2, 1)) | nearest,
        "stages_4": _stages((8, 4, 2, 1)) | nearest,
        "stages_5": _stages((16, 8, 4, 2, 1)) | nearest,
        "shares_2_1_1": _stages((4, 2, 1), (2, 1, 1)) | nearest,
        "shares_1_2_1": _stages((4, 2, 1), (1, 2, 1)) | nearest,
        "shares_1_1_2": _stages((4, 2, 1), (1, 1, 2)) | nearest,
        "factors_4_2": _stages((8, 2, 1)) | nearest,
        "factors_2_4": _stages((8, 4, 1)) | nearest,
        "alignment_off": _stages((4, 2, 1)) | {"alignment.mode": "none"},
    }
    base = CONSTANT_RATE | {"data.num_frames": 16}  # five stages need 16
    vanilla = Arm(name="vanilla", overrides=base | VANILLA | {"alignment.mode": "none"})
    others = tuple(
        Arm(name=name, overrides=base | change, baseline="vanilla")
        for name, change in changes.items()
    )
    return Grid(arms=(vanilla, *others), reference="vanilla")


def _space_time() -> Grid:
    """Pyramids over time, over space and over both, against the vanilla twin."""
    strides = {
        "space_time": ((4, 4, 4), (2, 2, 2), (1, 1, 1)),
        "time": ((4, 1, 1), (2, 1, 1), (1, 1, 1)),
        "space": ((1, 4, 4), (1, 2, 2), (1, 1, 1)),
    }
    config = "configs/space_time.py"
    vanilla = Arm(name="vanilla", overrides=VANILLA, config=config)
    others = (
        Arm(name=name, overrides={"pyramid.strides": own}, config=config, baseline="vanilla")
        for name, own in strides.items()
    )
    return Grid(arms=(vanilla, *others), reference="vanilla")


GRIDS: dict[str, Grid] = {
    "main": _main(),
    "space_time": _space_time(),
    "stage_weights": ablation({}, {"equal": {"pyramid.stage_weighting": "equal"}}),
    "factors": _factors(),
    "convergence": _convergence(),
    "upsampling": _against_vanilla(_upsampling(), CONSTANT_RATE),
    "natural": _natural(),
    "pyramid_shapes": _pyramid_shapes(),
    "ablations": ablation(ABLATION_BASE, _CHOICES, baselines={"velocity_stage_unit": "velocity"}),
    "natural_ablations": _natural_ablations(),
    "ddim_ablations": ablation(
        ABLATION_BASE | DDIM_BASE,
        {
            "prediction_v": {"path.prediction": "v"},
            "prediction_eps": {"path.prediction": "eps", "path.zero_terminal_snr": False},
            "betas_linear": {"path.betas": "linear"},
            "plain_terminal_snr": {"path.zero_terminal_snr": False},
            "alignment_none": {"alignment.mode": "none"},
            "level_stage": {"alignment.level": "stage"},
        },
        baselines={"prediction_eps": "plain_terminal_snr"},
        config="configs/ddim.py",
    ),
    "strides": ablation(
        ABLATION_BASE,
        {
            "strides_1": VANILLA,
            "strides_2_1": {"pyramid.frame_strides": (2, 1)},
            "strides_4_1": {"pyramid.frame_strides": (4, 1)},
            "strides_8_2_1": {"pyramid.frame_strides": (8, 2, 1)},
            "strides_8_4_2_1": {"pyramid.frame_strides": (8, 4, 2, 1)},
        },
    ),
}
