"""Interlaced frames: one picture of the two fields that a frame holds.

A frame of interlaced video weaves two moments together, which makes combs of whatever moves. The
bwdif filter keeps the lines of the earlier field, at whose time the frame is shown, and fills in
the others from the later one where nothing moves and from its neighbours where something does;
for that it looks at the frame before and the frame after.
"""

from collections.abc import Sequence
from typing import Any

import av
from av.filter import Graph

TOP_FIRST, BOTTOM_FIRST = (2, 5), (3, 4)  # AVFieldOrder by the field that is displayed first


def first_field(field_order: int) -> str:
    """Return "tff" or "bff" as a container states it, or "" for progressive or unknown."""
    return "tff" if field_order in TOP_FIRST else "bff" if field_order in BOTTOM_FIRST else ""


def deinterlace(frames: Sequence[Any], index: int, forced: str) -> Any:
    """Deinterlace one frame.

    Args:
        frames: the frame with those that are shown before and after it, as far as there are any.
        index: which of them.
        forced: "tff" or "bff" where the frames do not say which field is first, else "".

    Returns:
        A progressive frame with the frame's tags.
    """
    graph = Graph()
    graph.threads = 1  # every worker has a core
    first = frames[0]
    nodes = [
        graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base
        )
    ]
    nodes += [graph.add("setfield", forced)] if forced else []
    nodes += [graph.add("bwdif", "mode=send_frame:parity=auto:deint=all"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    for frame in frames:
        graph.push(frame)
    graph.push(None)
    pictures = []
    while True:
        try:
            pictures.append(graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return pictures[index]
