"""Buckets on this machine: servers that speak the protocols of S3 and of Google Cloud Storage."""

import contextlib
import uuid
from collections.abc import Iterator

import fsspec
import pytest

SCHEMES = ("s3", "gs")


@contextlib.contextmanager
def bucket(scheme: str) -> Iterator[str]:
    """Serve an empty bucket and set the variables by which libraries find it.

    Args:
        scheme: "s3" or "gs".

    Yields:
        Its address, as in s3://NAME.
    """
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        if scheme == "s3":
            from moto.server import ThreadedMotoServer

            s3_server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            s3_server.start()
            stack.callback(s3_server.stop)
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_server._server.server_port}")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "anything")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        else:
            from gcp_storage_emulator.server import create_server

            gs_server = create_server("127.0.0.1", 0, in_memory=True)
            gs_server.start()
            stack.callback(gs_server.stop)
            port = gs_server._api._httpd.server_port
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        files = fsspec.get_filesystem_class(scheme)
        files.clear_instance_cache()
        name = f"bucket-{uuid.uuid4().hex}"  # servers of one process share their buckets
        fsspec.filesystem(scheme).mkdir(name)
        yield f"{scheme}://{name}"
        files.clear_instance_cache()
