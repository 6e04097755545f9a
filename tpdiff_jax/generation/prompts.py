"""From the command line to requests: labels, captions or a file of prompts."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from tpdiff_jax.checks import check_choice, naming
from tpdiff_jax.data import Dataset, Requests, requests_of_labels
from tpdiff_jax.encoders import TextEncoder, open_text_encoder
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.experiment.null_condition import make_null_cond
from tpdiff_jax.files.text_files import clean_text, decode_text, text_lines
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
    def texts_are_given(self) -> bool:
        """Whether captions or a file of them are given."""
        return bool(self.captions) or self.prompts is not None

    @property
    def texts(self) -> list[str]:
        """Captions of `--caption` or of the lines of `--prompts`."""
        if self.prompts is not None:
            return read_prompts(self.prompts)
        return [clean_text(caption) for caption in self.captions]


def read_prompts(name: str, field: str = "--prompts") -> list[str]:
    """Return the lines of a file of prompts, cleaned as captions are, empty ones left out.

    See `files.text_files`.

    Args:
        name: of the file.
        field: what has named it, for errors.

    Raises:
        ValueError: when it cannot be read, is no text or holds no prompt.
    """
    path = pathlib.Path(name)
    if not path.is_file():
        raise ValueError(f"{field}={name} must be a file; there is none")
    if path.stat().st_size > MAX_PROMPT_FILE_BYTES:
        raise ValueError(f"{field}={name} must be a file of at most {MAX_PROMPT_FILE_BYTES} B")
    with naming(f"{field}={name}"):
        lines = [clean_text(line) for line in text_lines(decode_text(path.read_bytes()))]
    if not (prompts := [line for line in lines if line]):
        raise ValueError(f"{field}={name} holds no prompt")
    return prompts


def read_requests(
    experiment: Experiment,
    flags: SampleFlags,
    num_videos: int,
    *,
    is_number_given: bool = False,
) -> tuple[Requests, np.ndarray, Callable[[Cond], Cond] | None]:
    """Return what is asked for, and what guidance points away from.

    Args:
        experiment: its data set knows labels, or which text encoder it was prepared with.
        flags: of the command line.
        num_videos: videos where nothing in particular is asked for.
        is_number_given: whether it is asked for itself: labels, of which each is one video
            otherwise, are then repeated or cut to it.

    Returns:
        Requests, each different one once; the request of every video, [n]; the map to the
        unconditional twin, None for the one of training.

    Raises:
        ValueError: when an entry does not fit the data set, or a flag would go unread.
    """
    dataset = experiment.dataset
    _check_all_are_read(experiment, flags, is_number_given)
    if flags.labels and not dataset.num_digits:
        raise ValueError("--labels: the run was trained without labels; leave it out")
    text = _open_encoder(dataset, flags)
    if text is None:
        if (requests := _labels(dataset, flags)) is None:
            return dataset.requests(num_videos), np.arange(num_videos), None
        count = num_videos if is_number_given else requests.num_videos
        if count < requests.num_videos:
            logging.warning(
                "--num_videos=%d: the last %d requests are left out",
                count,
                requests.num_videos - count,
            )
        return requests, np.arange(count) % requests.num_videos, None
    null_cond = None
    if flags.negative_prompt:
        encoded = text([clean_text(flags.negative_prompt)])
        negative = {name: array[0] for name, array in encoded.items()}
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


def _check_all_are_read(experiment: Experiment, flags: SampleFlags, is_number_given: bool) -> None:
    """Raise ValueError for a flag that would change nothing of what is generated."""
    dataset = experiment.dataset
    if dataset.num_digits:
        given = {
            "--videos_per_prompt": flags.videos_per_prompt != 1,
            "--negative_prompt": bool(flags.negative_prompt),
            "--text_weights": bool(flags.text_weights),
        }
        if unread := [flag for flag, is_given in given.items() if is_given]:
            raise ValueError(
                f"{' and '.join(unread)}: the run was trained on labels, not on text; leave it out"
            )
    elif flags.texts_are_given and is_number_given:
        raise ValueError(
            "--num_videos: captions say how many videos there are, and --videos_per_prompt how "
            "many of each; leave it out"
        )
    elif flags.videos_per_prompt != 1 and not flags.texts_are_given:
        raise ValueError("--videos_per_prompt needs --caption or --prompts")
    elif flags.naming == "vbench" and not (dataset.null_cond or flags.texts_are_given):
        raise ValueError("--naming=vbench names videos after captions, and the run has none")
    elif flags.text_weights and not (flags.texts_are_given or flags.negative_prompt):
        raise ValueError("--text_weights needs --caption, --prompts or --negative_prompt")
    elif flags.negative_prompt and set(experiment.sampler.stage_scales) == {1.0}:
        raise ValueError(
            "--negative_prompt: guidance_scale is 1, and guidance alone reads it; leave it out"
        )


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
    if not (texts := flags.texts):
        return None
    labels = dataset.captions_to_labels(texts)
    for text in texts:
        if rest := words_beside_digits(text):
            logging.warning(
                "of the caption %r the run knows the digits alone; without effect: %s", text, rest
            )
    return requests_of_labels(labels)


def words_beside_digits(caption: str) -> str:
    """Return what a caption says besides its digits, such as how they move; "" for nothing.

    Args:
        caption: names digits as "digit N".
    """
    words = re.sub(r"\b((a|the)\s+)?digit\s+\w+", " ", caption.lower()).split()
    return " ".join(words) if set(words) - {"and"} else ""


def _parse_label(dataset: Dataset, entry: str) -> list[int]:
    parts = entry.strip().split("-")
    is_valid = all(part.isdigit() and int(part) < dataset.num_classes for part in parts)
    if not is_valid or len(parts) != dataset.num_digits:
        raise ValueError(
            f"--labels entry {entry!r} must be {dataset.num_digits} number(s) from 0 to "
            f"{dataset.num_classes - 1}, joined by '-'"
        )
    return [int(part) for part in parts]
