"""Advice in a few plain lines, and as words of a command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from tpdiff_jax.advice.choice import PAYING_COST
from tpdiff_jax.advice.settings_grid import USEFUL_SHARE, Setting

REAL_FOOTAGE: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "25 to 30": {"2": (0.035, 0.078), "4": (0.108, 0.232)},
    "12 to 15": {"2": (0.091, 0.154), "4": (0.289, 0.497)},
}
"""Frames a second -> stride -> least and largest share that a copied frame misses in three short
public videos, each and together (a talking head, street cyclists, an animated film; the table in
docs/advise.md)."""


def advice_lines(content: Mapping[str, Any]) -> list[str]:
    """What advice says, for the terminal.

    Args:
        content: of `advise.json`.
    """
    data, best, inputs = content["data"], content["recommended"], content["inputs"]
    lines = [
        f"{data['num_clips']} clips of {data['num_frames']} frames{_missed(content)}",
        f"  real footage: {_real()}",
        verdict(content),
    ]
    if best is None:
        return lines
    lines += [
        f"  {'recommended' if content['pays'] else 'the best there is'}: {_named(best)}",
        f"  cost of ordinary diffusion's FLOPs: training {best['training_cost']:.2f}, sampling "
        f"{best['sampling_cost']:.2f}",
        f"  error of an exact predictor with {inputs['num_calls']} calls: {best['error']:.3f} "
        f"(ordinary diffusion {content['vanilla']['error']:.3f})",
        f"  its jumps leave {_listed(best['visible_details'])} nats per thousand numbers visible, "
        f"and owe {_listed(best['debts'])} nats per new frame",
    ]
    if now := content["configured"]:
        lines.append(
            f"  the config as it stands: error {now['error']:.3f}, training "
            f"{now['training_cost']:.2f}, sampling {now['sampling_cost']:.2f}, visible detail "
            f"{_listed(now['visible_details'])}"
        )
    if fields := content["not_modelled"]:
        lines.append(f"  not modelled: {', '.join(fields)}")
    return [*lines, f"  {best['overrides']}"]


def verdict(content: Mapping[str, Any]) -> str:
    """Whether a temporal pyramid pays, in one sentence.

    Args:
        content: of `advise.json`.
    """
    best, inputs = content["recommended"], content["inputs"]
    if not content["useful_strides"]:
        share = content["detail_shares"]["nearest"]["2"]
        if share is None:
            return "Clips are too short for a temporal pyramid."
        return (
            "This measure speaks for no pyramid: a frame that is repeated over 2 misses "
            f"{share:.1%} of the variance, more than {USEFUL_SHARE:.1%}. Whether one trains better "
            "all the same is seen by training: on the fast Moving Digits equal stages did."
        )
    if not content["candidates"]:
        return _why_nothing_is_tried(content)
    if best is None:
        return f"No setting keeps to the limits: {_limits(inputs)}."
    if best["error"] > inputs["error_limit"]:
        return (
            f"Within a cost of {inputs['max_cost']:g} the least error is {best['error']:.3f}, "
            f"against {content['vanilla']['error']:.3f} of ordinary diffusion."
        )
    if best["cost"] > PAYING_COST:
        return f"A temporal pyramid hardly pays here: its cost is above {PAYING_COST:g}."
    return "A temporal pyramid pays here."


def override_words(
    setting: Setting, means: Sequence[float], resets: Mapping[str, Sequence[float]] = {}
) -> str:
    """A setting as overrides to copy.

    Args:
        setting: the fields.
        means: of the clips' channels, from which inserted frames start.
        resets: fields with entries of other stages -> what stands in their place.

    Returns:
        Words of a command line.
    """
    words = [
        f'--config.pyramid.frame_strides="{setting.frame_strides}"',
        f"--config.pyramid.downsample={setting.downsample}",
        f"--config.pyramid.upsample={setting.upsample}",
        f'--config.pyramid.stage_fractions="{setting.stage_fractions}"',
        f'--config.sample.steps_per_stage="{setting.steps_per_stage}"',
    ]
    if setting.upsample == "insert":
        rounded = tuple(float(f"{mean:.4g}") for mean in means)
        words.append(f'--config.pyramid.data_mean="{rounded}"')
    words += [f'--config.{field}="{tuple(values)}"' for field, values in resets.items()]
    return " ".join(words)


def _why_nothing_is_tried(content: Mapping[str, Any]) -> str:
    if not content["ladders"]:
        return (
            f"No temporal pyramid can be tried: no strides of {_listed(content['useful_strides'])} "
            f"fit both the network and clips of {content['data']['num_frames']} frames."
        )
    if content["inputs"]["num_calls"] == 1:
        return "No temporal pyramid can be tried: one network call is not enough for two stages."
    return "No temporal pyramid can be tried: no windows of its stages exist on this path."


def _limits(inputs: Mapping[str, Any]) -> str:
    """The limits that were applied: that of the error counts where none of cost is given."""
    error = inputs["error_limit"] if inputs["max_cost"] is None else None
    named = {
        "error": error,
        "visible detail": inputs["max_visible"],
        "debt": inputs["max_debt"],
        "cost": inputs["max_cost"],
    }
    return ", ".join(f"{name} {limit:.3g}" for name, limit in named.items() if limit is not None)


def _missed(content: Mapping[str, Any]) -> str:
    shares = content["detail_shares"]["nearest"]
    known = [f"{share:.1%} over {r}" for r, share in shares.items() if share is not None]
    if not known:
        return ", too few to repeat one of them"
    return f": a frame that is repeated misses {', '.join(known)} of the variance"


def _real() -> str:
    texts = []
    for rate, ranges in REAL_FOOTAGE.items():
        each = (f"{low:.0%} to {high:.0%} over {r}" for r, (low, high) in ranges.items())
        texts.append(f"{', '.join(each)} at {rate} frames a second")
    return "; ".join(texts)


def _named(row: Mapping[str, Any]) -> str:
    return (
        f"strides {_listed(row['frame_strides'])}, {row['upsample']} upsampling, stage fractions "
        f"{_listed(row['stage_fractions'])}, calls {_listed(row['steps_per_stage'])}"
    )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers) or "none"
