"""What the stages of a plan come to: rates, the pyramid against full rate, chip-hours."""

from collections.abc import Mapping, Sequence
from typing import Any

PlanRow = Mapping[str, Any]


def training_summary(
    rows: Sequence[PlanRow],
    stage_probs: Sequence[float],
    *,
    num_chips: int,
    num_clips: int,
    bucket_steps: Sequence[int] = (1,),
) -> dict[str, float] | None:
    """Return the rates of a training run whose every step takes its least time.

    Full rate everywhere ("vanilla") is the pyramid's last stage alone.

    Args:
        rows: one a stage, for one shape of clips after the other: `roofline`, `batch_size`,
            `tokens` of a step, `model_flops` of a step.
        stage_probs: share of the steps that each stage gets.
        num_chips: chips of the machine.
        num_clips: training clips to count chip-hours for.
        bucket_steps: in proportion to the steps that each shape gets.

    Returns:
        Figures at the bound, or None when a stage has none.
    """
    if any(row.get("roofline") is None for row in rows):
        return None
    seconds = [row["roofline"]["seconds"] for row in rows]

    shares = [steps / sum(bucket_steps) for steps in bucket_steps]
    probs = [share * prob for share in shares for prob in stage_probs]

    def mean(values: Sequence[float]) -> float:
        return sum(p * value for p, value in zip(probs, values, strict=True))

    def full_rate(values: Sequence[float]) -> float:
        last = values[len(stage_probs) - 1 :: len(stage_probs)]
        return sum(share * value for share, value in zip(shares, last, strict=True))

    clips, flops = ([row[name] for row in rows] for name in ("batch_size", "model_flops"))
    clip_seconds = mean(seconds) / mean(clips)
    vanilla_seconds = full_rate(seconds) / full_rate(clips)
    chip_hours = num_chips * num_clips / 3600.0
    return {
        "step_seconds": mean(seconds),
        "clips_per_second": 1.0 / clip_seconds,
        "tokens_per_second": mean([row["tokens"] for row in rows]) / mean(seconds),
        "speedup_over_vanilla": vanilla_seconds / clip_seconds,
        "flops_ratio_to_vanilla": (mean(flops) / mean(clips))
        / (full_rate(flops) / full_rate(clips)),
        "num_clips": num_clips,
        "chip_hours": chip_hours * clip_seconds,
        "chip_hours_vanilla": chip_hours * vanilla_seconds,
    }


def refusal(topology: str, rows: Sequence[PlanRow], search: PlanRow | None) -> str | None:
    """Return one line that says what does not fit, or None when everything does.

    Args:
        topology: name of the machine.
        rows: the programs: `name`, `batch_size`, `batch_field` (the config field that sizes it),
            `fits`, `needed_bytes`.
        search: the largest batch, when it was searched for, and the `batch_field` it is of.
    """
    wrong = [row for row in rows if not row["fits"]]
    if not wrong:
        return None
    worst = max(wrong, key=lambda row: row["needed_bytes"] or 0.0)
    needed = f" ({gibibytes(worst['needed_bytes'])} a device)" if worst["needed_bytes"] else ""
    field = worst["batch_field"]
    line = f"{worst['name']} does not fit {topology} with batches of {worst['batch_size']}{needed}"
    if search is None or search["batch_field"] != field:
        return f"{line}; choose a smaller {field}"
    if search["batch_size"] == 0:
        return f"nothing fits: {line}, and no smaller batch does"
    return f"{line}; the largest that fits is {field}={search['batch_size']}"


def format_plan(content: PlanRow) -> str:
    """Return a plan as text for the terminal."""
    rows = [*content["stages"], content["sampler"]]
    width = max(16, *(len(row["name"]) + 1 for row in rows))
    lines = [f"{_COLUMNS[0]:{width}s}" + "".join(f"{name:>11s}" for name in _COLUMNS[1:])]
    lines += [_program_line(row, width) for row in rows]
    if (search := content["largest_batch"]) and search["batch_size"]:
        note = f", {search['refused']} does not" if search["refused"] else ""
        lines.append(f"largest batch that fits: {search['batch_size']}{note}")
    if remat := content.get("remat"):
        lines.append(f"model.remat: {remat['reason']}")
    if training := content["training"]:
        lines.append(
            f"training at the bound: {training['step_seconds']:.3g} s a step, "
            f"{training['tokens_per_second']:.3g} tokens/s, "
            f"{training['speedup_over_vanilla']:.2f} times as fast as full rate, "
            f"{training['chip_hours']:.3g} chip-hours for {training['num_clips']:,} clips"
        )
    return "\n".join(lines)


def gibibytes(value: float) -> str:
    """A number of bytes as GiB."""
    return f"{value / 2**30:.2f} GiB"


_COLUMNS = ("program", "peak GiB", "of memory", "compute", "memory", "links", "MFU", "bound by")


def _program_line(row: PlanRow, width: int) -> str:
    line = f"{row['name']:{width}s}"
    if not row["fits"]:
        needed = row["needed_bytes"]
        return line + "  does not fit" + (f", needs {gibibytes(needed)}" if needed else "")
    share, bound = row["memory_share"], row["roofline"]
    line += f"{row['memory']['peak'] / 2**30:11.2f}"
    line += f"{'-':>11s}" if share is None else f"{share:11.0%}"
    if bound is None:
        return line + "   no published figures for this chip: no roofline"
    times = "".join(f"{bound[name]:9.3g} s" for name in ("compute", "memory", "interconnect"))
    return f"{line}{times}{bound['mfu_bound']:11.0%}  {bound['bound_by']}"
