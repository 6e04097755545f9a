"""Decoding on several processes, in order, with a bounded queue and no trust in the decoder.

Results come in the order of the sources, however many processes there are. Videos from the net
can crash a native decoder; a crash takes its process down, not the run: the videos in flight are
tried again one at a time, and one that crashes alone is bad for that reason.
"""

import collections
import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.files.open_files import OpenFilesError
from tpdiff_jax.preparation.clip_source import ClipSource, check_contained
from tpdiff_jax.preparation.video_decode import ClipFormat, read_clips
from tpdiff_jax.preparation.video_file import one_line

Outcome = list[np.ndarray] | BadClipError
"""The clips of one video, or why there are none."""

AHEAD_PER_WORKER = 2


def decode_source(
    root: str, clip: ClipSource, spec: ClipFormat, also: Sequence[pathlib.Path] = ()
) -> Outcome:
    """Decode one video; what is wrong with it is a value, so that it travels between processes.

    Args:
        root: folder that the video must lie in.
        clip: which video.
        spec: frames, rate and size of the clips.
        also: further folders that it may lie in, resolved.

    Returns:
        Its clips, or why there are none.

    Raises:
        OpenFilesError: when no further file may be open.
    """
    try:
        # Again, because the file may have changed since the table was read.
        return read_clips(check_contained(pathlib.Path(root), clip.path, also), spec)
    except BadClipError as bad:
        return bad
    except OpenFilesError:  # of this process, not of the video
        raise
    except OSError as error:  # unreadable by this user, or gone
        return BadClipError("unreadable", type(error).__name__)
    except Exception as error:  # damage that nobody has thought of yet, or a mistake of this code
        logging.warning("decoding %s", clip.path, exc_info=error)
        return BadClipError("corrupt", one_line(error))


def decoding(also_allowed: Sequence[str]) -> Callable[[str, ClipSource, ClipFormat], Outcome]:
    """Return `decode_source` for videos that may lie in these folders too."""
    also = tuple(pathlib.Path(allowed).resolve() for allowed in also_allowed)
    return functools.partial(decode_source, also=also)


def end_with_parent() -> None:
    """Watch the parent process: a worker whose parent was killed would wait for work for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class DecodePool:
    """Worker processes, used as a context manager."""

    def __init__(
        self,
        root: pathlib.Path,
        spec: ClipFormat,
        num_workers: int,
        decode: Callable[[str, ClipSource, ClipFormat], Outcome] = decode_source,
    ) -> None:
        """Prepare; processes start with the first video.

        Args:
            root: data folder, resolved.
            spec: clips to cut.
            num_workers: processes; 0 decodes here, where a crash of the decoder ends the run.
            decode: what to do with each source.
        """
        self._root, self._spec, self._num_workers = str(root), spec, num_workers
        self._decode = decode
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def outcomes(self, clips: Iterable[ClipSource]) -> Iterator[tuple[ClipSource, Outcome]]:
        """Yield every source with its clips, or why there are none, in order."""
        if self._num_workers == 0:
            for clip in clips:
                yield clip, self._decode(self._root, clip, self._spec)
            return
        rest = iter(clips)
        flying: collections.deque[tuple[ClipSource, Any]] = collections.deque()
        while True:
            room = AHEAD_PER_WORKER * self._num_workers - len(flying)
            for clip in itertools.islice(rest, room):
                flying.append((clip, self._submit(clip)))
            if not flying:
                return
            clip, future = flying.popleft()
            try:
                yield clip, future.result()
            except BrokenProcessPool:
                # Some video of these crashed its process and took the others' results with it.
                suspects = [clip, *(other for other, _ in flying)]
                flying.clear()
                self._stop()
                for suspect in suspects:
                    yield suspect, self._decode_alone(suspect)

    def _decode_alone(self, clip: ClipSource) -> Outcome:
        try:
            return self._submit(clip).result()
        except BrokenProcessPool:
            self._stop()
            return BadClipError("crashed")

    def _submit(self, clip: ClipSource) -> "concurrent.futures.Future[Outcome]":
        if self._pool is None:
            # Spawned, not forked: this process may run an accelerator's threads.
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._num_workers, context, initializer=end_with_parent
            )
        try:
            return self._pool.submit(self._decode, self._root, clip, self._spec)
        except BrokenProcessPool as error:  # found out between two results
            failed: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
