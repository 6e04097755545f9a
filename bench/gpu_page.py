"""The figures of `bench.gpu_suite` as a short Markdown page: measured, aimed at, from where."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.pages.markdown import NONE, median_and_quartiles, number, table

Row = Mapping[str, Any]
MFU_AIM, RATIO_AIM = 0.5, 0.5
_HEADER = ("part", "what", "measured", "aim or beside it", "within")


def write_page(report: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        report: what `gpu_suite.make_report` returns; parts may be missing or unfinished.
    """
    parts = report["parts"]
    lines = [line for name, part in parts.items() for line in part_lines(name, part)]
    device = report.get("device", {})
    where = f"{device.get('kind', 'no device was seen')}, {device.get('num_devices', 0)} device(s)"
    versions = ", ".join(f"{k} {v}" for k, v in report.get("versions", {}).items())
    intro = (
        f"On {where}, size `{report['size']}`, {versions}; commit "
        f"{report.get('commit', 'unknown')}. Medians [quartiles]; what is compared took turns. "
        f"Command: `{report['command']}`"
    )
    states = [
        [name, part["status"], number(part.get("wall_seconds"))] for name, part in parts.items()
    ]
    return (
        "\n\n".join(
            [
                "# GPU suite",
                intro,
                table(_HEADER, lines),
                table(["part", "how it ended", "seconds"], states),
            ]
        )
        + "\n"
    )


def part_lines(name: str, part: Mapping[str, Any]) -> list[list[str]]:
    """Return the lines of the table that a part has.

    Args:
        name: of the part.
        part: content of its file.
    """
    lines = []
    for row in part["rows"].values():
        if "error" in row:
            lines.append([name, row["name"], f"error: {_cell(row['error'])}", NONE, "no"])
        else:
            lines += [[name, *cells] for cells in _LINES[name](row)]
    return lines


def _attention(row: Row) -> list[list[str]]:
    worst, beside = (max(row[key].values()) for key in ("errors", "errors_of_xla_in_bfloat16"))
    told = f"{number(beside)} of XLA in bfloat16"
    return [[f"{row['name']}, {row['kernel']}", f"error {number(worst)}", told, _word(row)]]


def _steps(row: Row) -> list[list[str]]:
    lines = []
    for stage in row["stages"]:
        shape = "x".join(map(str, stage["shape"]))
        is_full = stage["twin"] == "vanilla"
        what = f"{row['name']}, {'vanilla' if is_full else 'stage ' + str(stage['stage'])}, {shape}"
        told = f"{median_and_quartiles(stage['seconds'])} s, {stage['peak_share']:.1%} of the peak"
        is_met = "yes" if stage["peak_share"] >= MFU_AIM else "no"
        aim = [f"{MFU_AIM:.0%} and more", is_met] if is_full else [NONE, NONE]
        lines.append([what, told, *aim])
    ratio = row["ratio"]
    aim = f"{RATIO_AIM}; {number(row['model_ratio'])} by FLOPs"
    is_met = "yes" if ratio["median"] <= RATIO_AIM else "no"
    what = f"{row['name']}, pyramid over vanilla"
    return [*lines, [what, median_and_quartiles(ratio), aim, is_met]]


def _sampling(row: Row) -> list[list[str]]:
    told = f"{median_and_quartiles(row['ratio'])} times faster"
    seconds = [f"{t} {median_and_quartiles(row[t])} s" for t in ("vanilla", "pyramid")]
    aim = f"{number(row['paper_ratio'])} in the paper, {number(row['flop_ratio'])} by FLOPs"
    is_met = "yes" if row["ratio"]["median"] >= row["paper_ratio"] else "no"
    return [[f"{row['name']}: {', '.join(seconds)}", told, aim, is_met]]


def _pytorch(row: Row) -> list[list[str]]:
    lines = []
    for case, ratio in row["over_ours"].items():
        work, _, who = case.partition("/")
        if who == "tpdiff_jax":
            continue
        ours, theirs = (row["times"][f"{work}/{name}"]["median"] for name in ("tpdiff_jax", who))
        told = f"{median_and_quartiles(ratio)} times ours"
        beside = f"{number(theirs * 1e3)} ms, ours {number(ours * 1e3)} ms"
        lines.append([f"{work}, {who}", told, beside, "yes" if ratio["median"] >= 1.0 else "no"])
    return lines


def _memory(row: Row) -> list[list[str]]:
    mebibytes = {name: number(row[name] / 2**20) for name in ("measured", "planned", "compiled")}
    told = f"{mebibytes['measured']} MiB, {row['departure']:+.1%}"
    beside = f"planned {mebibytes['planned']}, compiled {mebibytes['compiled']} MiB; 10 %"
    return [[row["name"], told, beside, _word(row)]]


def _resume(row: Row) -> list[list[str]]:
    differ: Sequence[int] = row["steps_that_differ"]
    told = f"steps {', '.join(map(str, differ))} differ" if differ else "every bit is equal"
    what = f"{row['name']}, stopped at {row['stopped_at']} of {row['steps']} steps"
    return [[what, told, "every bit", _word(row)]]


_LINES: Mapping[str, Callable[[Row], list[list[str]]]] = {
    "attention": _attention,
    "steps": _steps,
    "sampling": _sampling,
    "pytorch": _pytorch,
    "memory": _memory,
    "resume": _resume,
    "resume_deterministic": _resume,
    "training": _steps,
}


def _word(row: Row) -> str:
    return "yes" if row["is_within_aim"] else "no"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
