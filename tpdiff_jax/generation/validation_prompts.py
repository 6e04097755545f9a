"""Prompts that a run shows on its way: encoded once, at its start, and the same for good.

    encode_prompts   before the workdir changes: `sample.prompts` to conditions; the text encoder is
                     closed when it returns
    settle_prompts   once it may: keeps them there, where a resumed run and other processes read

A resumed run therefore needs neither the text encoder nor the file of prompts.
"""

import gc
import io
import json
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np
from absl import logging

from tpdiff_jax.checks import counted, naming
from tpdiff_jax.data import Requests, requests_of_labels
from tpdiff_jax.devices.host_memory import release_free_memory
from tpdiff_jax.devices.processes import is_true_at_main, wait_for_others
from tpdiff_jax.encoders import free_device_memory
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.generation.prompts import open_encoder_of_clips, read_prompts, requests_of_captions

SHOWN_PROMPTS_FILE = "sample_prompts.npz"
_CAPTIONS = "captions"  # a name that no entry of a condition has: they come with a prefix
_COND = "cond/"


def encode_prompts(experiment: Experiment, workdir: pathlib.Path) -> Requests | None:
    """Encode `sample.prompts`, unless the workdir holds them encoded; process 0 does, for all.

    Args:
        experiment: its data set knows labels, or which text encoder it was prepared with.
        workdir: the run's folder; nothing is written.

    Returns:
        One request a prompt; None where there is nothing to encode.

    Raises:
        ValueError: in every process, when file or encoder cannot be read or do not fit the run.
    """
    if not experiment.sample.prompts:
        return None
    requests, refusal = None, None
    if jax.process_index() == 0:
        try:
            if (workdir / SHOWN_PROMPTS_FILE).exists():
                _warn_of_changes(experiment, workdir)
            else:
                requests = _encode(experiment)
        except ValueError as error:
            refusal = error
        finally:  # of gigabytes; the encoder is out of every scope by now
            gc.collect()
            release_free_memory()
            free_device_memory()
    if is_true_at_main(refusal is not None):
        raise refusal or ValueError("process 0 cannot read sample.prompts")
    return requests


def settle_prompts(
    experiment: Experiment, workdir: pathlib.Path, encoded: Requests | None
) -> Requests:
    """Return what the run shows on its way, and keep it in the workdir where it is prompts.

    Args:
        experiment: the run.
        workdir: its folder.
        encoded: what `encode_prompts` has returned.

    Returns:
        One request a prompt of `sample.prompts`; without it `sample.num_videos` of the data set's.

    Raises:
        ValueError: when the workdir's file of prompts is damaged.
    """
    spec = experiment.sample
    if not spec.prompts:
        return experiment.dataset.requests(spec.num_videos)
    path = workdir / SHOWN_PROMPTS_FILE
    if encoded is not None:
        write_durably(path, _to_bytes(encoded))
    wait_for_others("the prompts are encoded")
    return _read(path)


def _encode(experiment: Experiment) -> Requests:
    dataset, spec = experiment.dataset, experiment.sample
    captions = read_prompts(spec.prompts, "sample.prompts")
    if dataset.num_digits:
        with naming("sample.prompts"):
            labels = requests_of_labels(dataset.captions_to_labels(captions))
        return Requests(labels.cond, captions)
    if dataset.encoders["text"]["name"] == "none":
        raise ValueError(
            f"sample.prompts={spec.prompts!r} must be '': the run is trained without captions"
        )
    encoder = open_encoder_of_clips(dataset, spec.text_weights, "sample.text_weights")
    with naming("sample.prompts"):
        requests = requests_of_captions(dataset, encoder, captions)
    logging.info("encoded %s of %s", counted(len(captions), "prompt"), spec.prompts)
    return requests


def _warn_of_changes(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Say so where the file of prompts no longer holds what the run shows."""
    shown = list(_read(workdir / SHOWN_PROMPTS_FILE).captions)
    try:
        now = read_prompts(experiment.sample.prompts, "sample.prompts")
    except ValueError:  # gone with the machine that the run has started on
        return
    if now != shown:
        logging.warning(
            "%s has changed; the run goes on showing the prompts that it has started with",
            experiment.sample.prompts,
        )


def _to_bytes(requests: Requests) -> bytes:
    text = json.dumps(list(requests.captions)).encode()
    arrays: dict[str, Any] = {_CAPTIONS: np.frombuffer(text, np.uint8)}
    arrays |= {f"{_COND}{name}": array for name, array in requests.cond.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _read(path: pathlib.Path) -> Requests:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        captions = json.loads(arrays.pop(_CAPTIONS).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged ({error}); without it the run encodes sample.prompts anew"
        ) from error
    return Requests({name.removeprefix(_COND): array for name, array in arrays.items()}, captions)
