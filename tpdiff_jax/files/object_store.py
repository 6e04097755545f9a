"""Objects below an address of a bucket: listed, read and written whole, which is all they can do.

An object appears in one step and nothing else does: no rename, no append, no lock. fsspec's
libraries speak the protocols, gcsfs for `gs://` and s3fs for `s3://`, with their own logins and
environment variables.
"""

import pathlib
import tempfile
from typing import Any

from tpdiff_jax.checks import check_path_or_bucket

_PART = 2**20
_AT_ONCE = 2**26  # bytes: smaller files are read before they are sent, so that one may grow


class ObjectStore:
    """The objects whose names begin with one address."""

    def __init__(self, address: str) -> None:
        """Open the library; the first call reaches out.

        Args:
            address: as in gs://bucket/run.

        Raises:
            ValueError: when it is another kind of address, or the library is missing.
        """
        check_path_or_bucket("address", address)
        scheme, _, root = address.partition("://")
        try:
            import fsspec

            # Listings anew each time: others write here too.
            self._files: Any = fsspec.filesystem(scheme, use_listings_cache=False)
        except ImportError as error:
            raise ValueError(
                f"{address} needs `pip install -r requirements-bucket.txt`, or the extra bucket: "
                f"{error}"
            ) from error
        self.address, self._root = address, root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object by name, which uses forward slashes."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        prefix = self._root + "/"
        return {
            path.removeprefix(prefix): entry["size"]
            for path, entry in sorted(found.items())
            if path.startswith(prefix) and not path.endswith("/")
        }

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or None where there is none."""
        self._files.invalidate_cache()
        try:
            return self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace an object."""
        self._files.pipe_file(f"{self._root}/{name}", content)

    def fetch_to(self, name: str, path: pathlib.Path) -> None:
        """Copy an object to a file, whose folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(f"{self._root}/{name}", str(path))

    def send(self, path: pathlib.Path, name: str, *, may_grow: bool = False) -> None:
        """Copy a file to an object.

        Args:
            path: of the file.
            name: of the object.
            may_grow: whether lines may be added meanwhile; what is there at first is then sent.
                Libraries announce a length and send what they find.
        """
        size = path.stat().st_size
        if size < _AT_ONCE:
            self.write(name, path.read_bytes())
        elif not may_grow:
            self._files.put_file(str(path), f"{self._root}/{name}")
        else:
            with tempfile.NamedTemporaryFile(prefix="tpdiff_jax_sending-") as copy:
                with path.open("rb") as file:
                    while size > 0 and (part := file.read(min(size, _PART))):
                        size -= copy.write(part)
                copy.flush()
                self._files.put_file(copy.name, f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone already is no error."""
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            pass
