"""From the command line to requests: labels, captions or a file of prompts."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from tpdiff_jax.checks import check_choice, naming
from tpdiff_jax.data import Dataset, Requests, requests_of_labels
from tpdiff_jax.encoders import TextEncoder, open_text_encoder
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.experiment.null_condition import make_null_cond
from tpdiff_jax.files.text_files import decode_text, text_lines
from tpdiff_jax.types import Cond

NAMINGS = ("numbers", "vbench")
MAX_PROMPT_FILE_BYTES = 2**26


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleFlags:
    """What `--mode=sample` takes from the command line beside the config.

    Attributes:
        labels: one entry a video; digits of one video joined by `-`, as in `3-7`.
        captions: one caption a video.
        prompts: file of captions, one a line.
        videos_per_prompt: videos of each caption of a text-conditioned run.
        negative_prompt: what guidance points away from; "" is the empty prompt.
        text_weights: folder of the text encoder that the clips were prepared with.
        naming: "numbers", or "vbench" for `PROMPT-0.mp4`, `PROMPT-1.mp4`, ...

    Raises:
        ValueError: for more than one source of requests or an unknown naming.
    """

    labels: Sequence[str] = ()
    captions: Sequence[str] = ()
    prompts: str | None = None
    videos_per_prompt: int = 1
    negative_prompt: str = ""
    text_weights: str = ""
    naming: str = "numbers"

    def __post_init__(self) -> None:
        check_choice("--naming", self.naming, NAMINGS)
        given = {"--labels": self.labels, "--caption": self.captions, "--prompts": self.prompts}
        if len(named := [flag for flag, value in given.items() if value]) > 1:
            raise ValueError(f"give {' or '.join(named)}, not both")

    @property
    def texts(self) -> list[str]:
        """Captions of `--caption` or of the lines of `--prompts`."""
        return list(self.captions) if self.prompts is None else read_prompts(self.prompts)


def read_prompts(name: str, field: str = "--prompts") -> list[str]:
    """Return the lines of a file of prompts, empty ones left out; see `files.text_files`.

    Args:
        name: of the file.
        field: what has named it, for errors.

    Raises:
        ValueError: when it cannot be read, is no text or holds no prompt.
    """
    path = pathlib.Path(name)
    if not path.is_file() or path.stat().st_size > MAX_PROMPT_FILE_BYTES:
        raise ValueError(f"{field}={name} must be a file of at most {MAX_PROMPT_FILE_BYTES} B")
    with naming(f"{field}={name}"):
        lines = [line.strip() for line in text_lines(decode_text(path.read_bytes()))]
    if not (prompts := [line for line in lines if line]):
        raise ValueError(f"{field}={name} holds no prompt")
    return prompts


def read_requests(
    experiment: Experiment, flags: SampleFlags, num_videos: int
) -> tuple[Requests, np.ndarray, Callable[[Cond], Cond] | None]:
    """Return what is asked for, and what guidance points away from.

    Args:
        experiment: its data set knows labels, or which text encoder it was prepared with.
        flags: of the command line.
        num_videos: videos where nothing, or labels, are asked for; entries are repeated or cut.

    Returns:
        Requests, each different one once; the request of every video, [n]; the map to the
        unconditional twin, None for the one of training.

    Raises:
        ValueError: when an entry does not fit the data set.
    """
    dataset = experiment.dataset
    if flags.labels and not dataset.num_digits:
        raise ValueError("--labels: the run was trained without labels; leave it out")
    text = _open_encoder(dataset, flags)
    if text is None:
        requests = _labels(dataset, flags) or dataset.requests(num_videos)
        return requests, np.arange(num_videos) % requests.num_videos, None
    null_cond = None
    if flags.negative_prompt:
        negative = {name: array[0] for name, array in text([flags.negative_prompt]).items()}
        null_cond = make_null_cond(experiment.network, negative)
    if not (captions := flags.texts):
        return dataset.requests(num_videos), np.arange(num_videos), null_cond
    rows = np.repeat(np.arange(len(captions)), flags.videos_per_prompt)
    return requests_of_captions(dataset, text, captions), rows, null_cond


def requests_of_captions(
    dataset: Dataset, encoder: TextEncoder, captions: Sequence[str]
) -> Requests:
    """Encode captions; says how many are too long for the encoder.

    Args:
        dataset: clips with encoded captions.
        encoder: theirs.
        captions: one a request.

    Raises:
        ValueError: when an embedding has no place in its type.
    """
    if cut := sum(map(encoder.is_cut, captions)):
        logging.warning(
            "%d of %d prompts are longer than the text encoder's %d tokens and cut",
            *(cut, len(captions), encoder.facts["text_tokens"]),
        )
    label = {"label": np.zeros((len(captions), dataset.num_digits), np.int32)}
    return Requests({**label, **encoder(captions)}, captions)


def _open_encoder(dataset: Dataset, flags: SampleFlags) -> TextEncoder | None:
    """The text encoder of the run's clips, where one is needed.

    Raises:
        ValueError: when text is given to a run without, or the weights are not those of the clips.
    """
    is_asked = bool(flags.captions or flags.prompts or flags.negative_prompt)
    if not is_asked or dataset.num_digits:
        return None
    if dataset.encoders["text"]["name"] == "none":
        raise ValueError(
            "--caption, --prompts and --negative_prompt: the run was trained without captions; "
            "leave them out"
        )
    return open_encoder_of_clips(dataset, flags.text_weights, "--text_weights")


def open_encoder_of_clips(dataset: Dataset, weights: str, field: str) -> TextEncoder:
    """Read the text encoder that a data set's captions were encoded with.

    Args:
        dataset: clips with encoded captions.
        weights: folder of the encoder.
        field: what has named the folder, for errors.

    Raises:
        ValueError: when the folder does not hold that encoder.
    """
    facts = dataset.encoders["text"]
    if not weights:
        raise ValueError(f"{field} must be the folder of the text encoder {facts['name']!r}")
    folder = pathlib.Path(weights)
    with naming(field):
        encoder = open_text_encoder(facts["name"], folder, facts["text_tokens"])
    if encoder.facts["weights_sha256"] != facts["weights_sha256"]:
        raise ValueError(
            f"{field}={folder} does not hold the {facts['name']!r} that encoded the captions"
        )
    return encoder


def _labels(dataset: Dataset, flags: SampleFlags) -> Requests | None:
    """Requests of `--labels`, or of the digits that captions name; None without either."""
    if flags.labels:
        rows = [_parse_label(dataset, entry) for entry in flags.labels]
        return requests_of_labels(np.asarray(rows, np.int32))
    if texts := flags.texts:
        return requests_of_labels(dataset.captions_to_labels(texts))
    return None


def _parse_label(dataset: Dataset, entry: str) -> list[int]:
    parts = entry.strip().split("-")
    is_valid = all(part.isdigit() and int(part) < dataset.num_classes for part in parts)
    if not is_valid or len(parts) != dataset.num_digits:
        raise ValueError(
            f"--labels entry {entry!r} must be {dataset.num_digits} number(s) from 0 to "
            f"{dataset.num_classes - 1}, joined by '-'"
        )
    return [int(part) for part in parts]
