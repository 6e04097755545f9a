"""What a worker needs of this checkout as one archive: code, as it stands on disk now.

Nothing else goes along: no data, no runs, no hidden file, and so no secret that lies about.
"""

import pathlib
import tarfile

PARTS = ("configs", "launch", "tpdiff_jax", "requirements.txt")


def pack_code(root: pathlib.Path, target: pathlib.Path) -> int:
    """Write the parts below `root` to a gzipped tar; return how many files they are."""
    parts = [root / part for part in PARTS]
    paths = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file()]
    names = sorted(path.relative_to(root) for path in paths)
    kept = [name for name in names if not any(_is_left_out(part) for part in name.parts)]
    with tarfile.open(target, "w:gz") as archive:
        for name in kept:
            archive.add(root / name, arcname=str(name), recursive=False)
    return len(kept)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"
