"""The card of a run's weights: README.md as model hubs show it, facts in front and text behind.

Figures are those of results.json, where it is of the same step; nothing is said that the run does
not know. Nothing is uploaded.
"""

import math
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import yaml

from tpdiff_jax import __version__
from tpdiff_jax.checks import counted
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import COUNT, TABLE
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.run_folder.run_config import is_exported_model

OWN_LICENCE = "apache-2.0"
CARD_FILE = "README.md"
_FROM_OTHERS = "The run started from weights that others have published"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_PAPER = "2503.09566"
_RESULTS: Mapping[str, Any] = {
    "counts": {"steps": COUNT},
    "metrics": TABLE,
    "references": TABLE,
    "metric_info": TABLE,
}


class CardFiles(NamedTuple):
    """What lies beside the card, relative to it.

    Attributes:
        videos: MP4 files.
        picture: a GIF of several of them; None where there is none.
        has_licence_text: whether LICENSE is there.
    """

    videos: Sequence[str] = ()
    picture: str | None = None
    has_licence_text: bool = False


def choose_licence(run: OpenedRun, asked: str | None) -> str:
    """Return the licence of a run's weights, as model hubs name it.

    Args:
        run: the opened run.
        asked: --licence; None: the one that an exported model's card names, this package's, or
            `other` for a run that started from weights of somebody else, whose licence is not
            known here.

    Raises:
        ValueError: for a name that cannot be one.
    """
    if asked is None and (kept := kept_licence(run)):
        return kept
    if asked is None:
        return "other" if run.experiment.weights or run.experiment.adapter else OWN_LICENCE
    if not _LICENCE.fullmatch(asked):
        raise ValueError(
            f"--licence is {asked!r}; allowed: a hub's name of a licence, such as apache-2.0, "
            "openrail or other"
        )
    return asked


def kept_licence(run: OpenedRun) -> str | None:
    """Return the licence that the card of an exported model names; None: a run, or no such card."""
    if not is_exported_model(run.workdir):
        return None
    try:
        facts = yaml.safe_load(_card_of(run).split("---\n")[1])
        licence = facts["license"]
    except (IndexError, KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return licence if isinstance(licence, str) and _LICENCE.fullmatch(licence) else None


def _card_of(run: OpenedRun) -> str:
    """Return the card in a run's folder, empty where there is none that can be read."""
    try:
        return (run.workdir / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _is_from_others(run: OpenedRun) -> bool:
    """Whether the weights began as somebody else's; an exported model's card knows."""
    if kept_licence(run):
        return _FROM_OTHERS in _card_of(run)
    return bool(run.experiment.weights or run.experiment.adapter)


def read_figures(workdir: pathlib.Path, step: int) -> Mapping[str, Any] | None:
    """Return results.json where it holds the figures of this step, else None."""
    try:
        results = read_json(workdir / "results.json", schema=_RESULTS)
    except ValueError:
        return None
    return results if results["counts"]["steps"] == step and results["metrics"] else None


def card_text(
    run: OpenedRun,
    name: str,
    licence: str,
    figures: Mapping[str, Any] | None,
    files: CardFiles,
) -> str:
    """Return README.md.

    Args:
        run: the opened run.
        name: of the model.
        licence: what `choose_licence` returns.
        figures: what `read_figures` returns.
        files: what lies beside it.
    """
    facts = yaml.safe_dump(
        _facts(run, name, licence, figures), sort_keys=False, allow_unicode=True, width=100
    )
    parts = [
        f"---\n{facts}---",
        f"# {_as_text(name)}",
        _what_it_is(run),
        _samples(files),
        _figures(figures),
        _how_to_load(run),
        _how_it_was_trained(run),
        _licence(run, licence, files),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(
    run: OpenedRun, name: str, licence: str, figures: Mapping[str, Any] | None
) -> dict[str, Any]:
    experiment, config = run.experiment, run.experiment.config
    task = "text-to-video" if _is_conditioned(run) else "other"
    path = {"flow": "flow-matching"}.get(config.path.name, config.path.name)
    tags = ["video", "diffusion", path, "tpdiff", "jax", config.model.name]
    tags += ["temporal-pyramid"] if experiment.pyramid.num_stages > 1 else []
    facts: dict[str, Any] = {"license": licence}
    if licence == "other":
        facts["license_name"] = "see-the-section-licence"
    facts |= {"library_name": "tpdiff_jax", "pipeline_tag": task}
    facts["tags"] = [*tags, f"arxiv:{_PAPER}"]
    if figures:
        measured = [
            {"type": metric, "value": value, "name": _meaning(figures, metric)}
            for metric, value in figures["metrics"].items()
            if _is_finite(value)
        ]
        data = experiment.config.data.name
        results = {"task": {"type": task}, "dataset": {"type": data, "name": data}}
        facts["model-index"] = [{"name": name, "results": [{**results, "metrics": measured}]}]
    return facts


def _is_conditioned(run: OpenedRun) -> bool:
    """Whether captions say what is generated: encoded, or read as labels."""
    facts = run.experiment.clip_facts
    return facts.num_classes > 0 or "text" in facts.cond_shapes


def _what_it_is(run: OpenedRun) -> str:
    config, shapes = run.experiment.config, run.experiment.shapes
    frames, height, width, channels = shapes[0].video_shape
    unit = "pixels" if run.experiment.dataset.encoders["video"]["name"] == "pixels" else "latents"
    pyramid, training = run.experiment.pyramid, "vanilla diffusion, without a pyramid of stages"
    if pyramid.num_stages > 1:
        strides = " -> ".join("x".join(map(str, stage.strides)) for stage in pyramid.stages)
        training = (
            f"a pyramid of stages ([TPDiff](https://arxiv.org/abs/{_PAPER})) of strides {strides} "
            "over time, height and width"
        )
    return (
        f"A `{config.model.name}` of {_num_parameters(run) / 1e6:.3g} million parameters that "
        f"generates videos of {frames} frames of {height}x{width} {unit} with "
        f"{counted(channels, 'channel')}, trained for `{config.path.name}` by {training}. These "
        f"are the averaged parameters after {counted(run.step, 'step')}."
    )


def _samples(files: CardFiles) -> str:
    picture = f"![Generated videos]({files.picture})" if files.picture else ""
    links = [f"[{i}]({urllib.parse.quote(path)})" for i, path in enumerate(files.videos, start=1)]
    text = f"Generated videos: {', '.join(links)}" if links else ""
    body = "\n\n".join(part for part in (picture, text) if part)
    return f"## Samples\n\n{body}" if body else ""


def _figures(figures: Mapping[str, Any] | None) -> str:
    if not figures or not figures["metrics"]:
        return ""
    columns = {"generated": figures["metrics"], **figures["references"]}
    heads = ["figure", *columns, "better"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for metric in figures["metrics"]:
        cells = [_number(column.get(metric)) for column in columns.values()]
        direction = figures["metric_info"].get(metric, {}).get("direction", "")
        lines.append("| " + " | ".join([_meaning(figures, metric), *cells, direction]) + " |")
    count = figures["counts"].get("eval_videos")
    sets = f" of {count} generated videos" if count else ""
    return (
        f"## Figures\n\nMeans{sets}, beside the same figures of real clips (`ceiling`) and of "
        "spoilt ones, from the run's own evaluation.\n\n" + "\n".join(lines)
    )


def _how_to_load(run: OpenedRun) -> str:
    facts, asked, more = run.experiment.clip_facts, "num_videos=4", ""
    if facts.num_classes:
        asked = "labels=[3, 1, 4]" if facts.num_digits == 1 else 'labels=["3-1", "4-1"]'
    if "text" in facts.cond_shapes:
        asked = 'captions=["..."], text_weights="ENCODER"'
        more = "\n\nENCODER is the folder of the text encoder that the clips were prepared with."
    if run.experiment.dataset.encoders["video"]["name"] != "pixels":
        more += (
            "\n\nThe network generates latents: `open_run(FOLDER, video_weights=...)` names the "
            "autoencoder that decodes them."
        )
    return (
        f"## Use\n\nWith `tpdiff_jax` {__version__} and FOLDER a local copy of this one:\n\n"
        "```python\nimport tpdiff_jax\n\n"
        'run = tpdiff_jax.open_run("FOLDER")\n'
        f'videos = run.sample({asked})  # uint8 [n, f, h, w, c]\nrun.save(videos, "clips")\n```\n\n'
        "or `tpdiff_jax sample --workdir=FOLDER --out=clips`. Training starts from the weights by "
        f"`--config.model.weights=FOLDER`. Only JSON and safetensors are read.{more}"
    )


def _how_it_was_trained(run: OpenedRun) -> str:
    config, train = run.experiment.config, run.experiment.train
    return (
        f"## Training\n\n{run.step} steps of {train.batch_size} clips of `{config.data.name}`, "
        f"{config.optim.name} at {config.optim.learning_rate:g}, seed {train.seed}; every field of "
        "the config stands in `tpdiff_run.json`."
    )


def _licence(run: OpenedRun, licence: str, files: CardFiles) -> str:
    text = f"`{licence}`"
    if files.has_licence_text:
        text += ", see [LICENSE](LICENSE)"
    if _is_from_others(run):
        text += (
            f". {_FROM_OTHERS}: their licence holds for these weights too, and has to be named "
            "here before they are passed on"
        )
    return f"## Licence\n\n{text}."


def _meaning(figures: Mapping[str, Any], metric: str) -> str:
    info = figures["metric_info"].get(metric, {})
    unit = info.get("unit", "1")
    text = str(info.get("meaning", metric)) + ("" if unit == "1" else f" ({unit})")
    return text.replace("|", "/")


def _as_text(name: str) -> str:
    """Return a name so that Markdown shows it as it is, on one line."""
    line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", name)
    return re.sub(r"[\\`*_{}\[\]<>#~|&$!]", r"\\\g<0>", line)


def _number(value: Any) -> str:
    return f"{value:.4g}" if _is_finite(value) else "-"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _num_parameters(run: OpenedRun) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(run.params))
