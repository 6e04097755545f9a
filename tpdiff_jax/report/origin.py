"""What made a page: the command, the commit, versions and devices, as its head tells them."""

from collections.abc import Mapping
from typing import Any

from tpdiff_jax.report.formats import figure, is_number
from tpdiff_jax.report.pages import Fact


def origin_facts(content: Mapping[str, Any]) -> list[Fact]:
    """Return what the head of a page tells of its origin.

    Args:
        content: of results.json, of a plan or of a summary: any of `command`, `commit`, `versions`
            and `device`.
    """
    command, commit, versions = (content.get(name) for name in ("command", "commit", "versions"))
    shown = versions if isinstance(versions, dict) else {}
    facts = [
        Fact("command", str(command or ""), is_code=True),
        Fact("commit", str(commit or ""), is_code=True),
        Fact("versions", ", ".join(f"{name} {text}" for name, text in shown.items() if text)),
        Fact("device", _device(content.get("device"))),
    ]
    return [fact for fact in facts if fact.value]


def _device(device: Any) -> str:
    """Such as `8 TPU v5 lite, 112 CPU cores, x86_64`."""
    if not isinstance(device, dict):
        return ""
    cores = device.get("cpu_cores")
    parts = [
        " ".join(str(device[name]) for name in ("num_devices", "kind") if device.get(name)),
        f"{figure(cores)} CPU core{'s' if cores != 1 else ''}" if is_number(cores) else "",
        str(device.get("machine") or ""),
    ]
    return ", ".join(part for part in parts if part)
