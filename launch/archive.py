"""What a worker needs of this checkout as one archive: code, as it stands on disk now.

Nothing else goes along: no data, no runs, no hidden file, and so no secret that lies about.
"""

import pathlib
import tarfile

PARTS = ("configs", "launch", "tpdiff_jax", "requirements.txt")


def pack_code(root: pathlib.Path, target: pathlib.Path) -> int:
    """Write the parts below `root` to a gzipped tar; return how many files they are.

    A link is stored as the file that it leads to: on the workers nothing else would be there.

    Args:
        root: of the repository.
        target: file to write.

    Raises:
        ValueError: for a link that leads to anything but a file of these parts.
    """
    parts = [root / part for part in PARTS]
    paths = [path for part in parts for path in (part, *part.rglob("*"))]
    kept = sorted(
        path
        for path in paths
        if (path.is_file() or path.is_symlink())
        and not any(map(_is_left_out, path.relative_to(root).parts))
    )
    for path in kept:
        check_inside(root, path, str(path.relative_to(root)))
        if not is_packed(path.resolve().relative_to(root.resolve())) or not path.is_file():
            raise ValueError(f"{path.relative_to(root)} is a link to what is not sent along")
    with tarfile.open(target, "w:gz", dereference=True) as archive:
        for path in kept:
            archive.add(path, arcname=str(path.relative_to(root)), recursive=False)
    return len(kept)


def is_packed(name: pathlib.PurePath) -> bool:
    """Whether a file of this name, from the repository root, goes along."""
    return name.parts[0] in PARTS and not any(map(_is_left_out, name.parts))


def check_inside(root: pathlib.Path, path: pathlib.Path, what: str) -> None:
    """Refuse a file that lies outside a folder once all links are followed.

    Args:
        root: the folder.
        path: the file, below `root` as it is written.
        what: how to call it.

    Raises:
        ValueError: naming the file.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{what} is a link that leaves the repository")


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"
