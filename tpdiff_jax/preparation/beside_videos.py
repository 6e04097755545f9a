"""Without a table of the user's: one that lies in the folder, or text files beside the videos."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.files.text_files import decode_text
from tpdiff_jax.preparation.clip_source import check_contained
from tpdiff_jax.preparation.column_names import Columns
from tpdiff_jax.preparation.csv_rows import TableRow
from tpdiff_jax.preparation.folder_walk import is_video_name
from tpdiff_jax.preparation.table_files import VIDEO_LISTS

TABLE_NAMES = (
    *("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.json", "metadata.parquet"),
    *("captions.json", *VIDEO_LISTS),
)
CAPTION_SUFFIXES = (".txt", ".caption")
BYTES_A_CHARACTER = 4  # UTF-32, the longest that is read


def find_tables(files: Sequence[str]) -> list[str]:
    """Return the tables of a folder by the names that other trainers give them.

    Args:
        files: paths from the folder.

    Returns:
        None, one, or one in each of several folders that lie beside each other.

    Raises:
        ValueError: when it is open which is meant.
    """
    found = [p for p in files if pathlib.PurePosixPath(p).name.lower() in TABLE_NAMES]
    folders = [pathlib.PurePosixPath(path).parent for path in found]
    for i, folder in enumerate(folders):
        if any(folder == o or folder in o.parents for o in folders[:i] + folders[i + 1 :]):
            raise ValueError(
                f"prepare.table='' finds several tables: {', '.join(found[:5])}; name one, or "
                "'sidecar' for the text files beside the videos"
            )
    return found


def sidecar_rows(
    root: pathlib.Path,
    files: Sequence[str],
    columns: Columns,
    max_bytes: int,
    also: Sequence[pathlib.Path] = (),
) -> Iterator[TableRow]:
    """Yield every video with the text beside it: `a.txt`, `a.mp4.txt` or `.caption`, any case.

    Where the text cannot be read, the reason stands in its place.

    Args:
        root: the data folder, resolved.
        files: everything in it.
        columns: names for path and caption.
        max_bytes: of a caption.
        also: further folders that links may lead to, resolved.
    """
    videos = [path for path in files if is_video_name(path)]
    texts = find_texts(files)
    read: set[str] = set()
    several: list[str] = []
    if again := find_second_names(root, videos, texts):
        logging.info(
            "%d links to videos that lie in the folder anyway are left out, such as %s",
            *(len(again), again[0]),
        )
        read.update(text for path in again for text in texts[path])
        videos = sorted(set(videos) - set(again))
    for path in videos:
        caption: str | BadClipError = ""
        mine = texts[path]
        read.update(mine)
        if len(mine) > 1:
            several.append(path)
        if mine:
            try:
                caption = read_caption(check_contained(root, mine[0], also), max_bytes)
            except BadClipError as bad:
                caption = BadClipError(bad.reason, f"{mine[0][:200]}: {bad.detail}")
        yield TableRow("", {columns.path: path, columns.caption: caption})
    if several:
        logging.warning(
            "%d videos have several text files, of which the first is read: %s has %s",
            *(len(several), several[0], ", ".join(texts[several[0]])),
        )
    rest = [path for path in files if _is_text(path) and path not in read]
    if rest:
        logging.warning(
            "%d text files belong to no video, such as %s: %s, %s and .caption are read",
            *(len(rest), rest[0], "VIDEO.txt", "VIDEO.mp4.txt"),
        )


def find_texts(files: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the text files of each video, the nearest name first.

    A text whose name differs in case belongs to a video only where no other video's does not.
    """
    texts = {path for path in files if _is_text(path)}
    by_fold: dict[str, list[str]] = {}
    for text in sorted(texts):
        by_fold.setdefault(text.casefold(), []).append(text)
    videos = [path for path in files if is_video_name(path)]
    stems: dict[str, set[str]] = {}
    for path in videos:
        stems.setdefault(_stem(path).casefold(), set()).add(_stem(path))
    found = {}
    for path in videos:
        names = [base + suffix for suffix in CAPTION_SUFFIXES for base in (_stem(path), path)]
        exact = [name for name in names if name in texts]
        folded = [text for name in names for text in by_fold.get(name.casefold(), [])]
        if len(stems[_stem(path).casefold()]) > 1:  # another video differs in case alone
            folded = [text for text in folded if text.startswith(_stem(path))]
        found[path] = list(dict.fromkeys(exact + folded))
    return found


def find_second_names(
    root: pathlib.Path, videos: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the links to videos that are found in their own place too, with no other text.

    Of the two names one could be trained on and the other held out.

    Args:
        root: the data folder, resolved.
        videos: paths of all that are found.
        texts: of each video, as from `find_texts`.
    """

    def real(path: str) -> str:
        return os.path.realpath(root / path)

    links = [path for path in videos if (root / path).is_symlink()]
    own = {real(path): path for path in set(videos) - set(links)} if links else {}
    return [
        path
        for path in links
        if (target := own.get(real(path))) is not None
        and set(map(real, texts[path])) <= set(map(real, texts[target]))
    ]


def read_caption(path: pathlib.Path, max_bytes: int) -> str:
    """Read the text of a caption, one file.

    Raises:
        BadClipError: caption_too_long or wrong_encoding.
    """
    most = BYTES_A_CHARACTER * (max_bytes + 1)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BadClipError("caption_too_long", f"more than {most} bytes")
    try:
        return decode_text(content)
    except ValueError as error:
        raise BadClipError("wrong_encoding", str(error)) from error


def _stem(path: str) -> str:
    return str(pathlib.PurePosixPath(path).with_suffix(""))


def _is_text(path: str) -> bool:
    return pathlib.PurePosixPath(path).suffix.lower() in CAPTION_SUFFIXES
