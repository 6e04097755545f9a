"""Scripts in a process of their own, on as many host devices as asked for: jax fixes the count."""

import os
import subprocess
import sys

from tests.tiny import REPO

_FEW_COLLECTIONS = "import gc; gc.set_threshold(10_000, 10, 10)\n"
"""As in the command itself: hardly anything that is traced goes away."""


def last_line_on(num_devices: int, script: str, *arguments: str, timeout: float = 900.0) -> str:
    """Run a script on forced host devices; return the last line that it prints."""
    forced = f"--xla_force_host_platform_device_count={num_devices} " + os.environ["XLA_FLAGS"]
    out = subprocess.run(
        [sys.executable, "-c", _FEW_COLLECTIONS + script, *arguments],
        cwd=REPO,
        env=os.environ | {"XLA_FLAGS": forced, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()[-1]
