"""A plan's page shows its figures, survives gaps and runs nothing."""

import json
import pathlib

from tpdiff_jax.report.formats import byte_count
from tpdiff_jax.report.plan_page import render_plan, write_plan_page

STAGE = {
    "name": "train stage 0", "batch_size": 64, "tokens": 983_040, "fits": True,
    "needed_bytes": 3 * 2**30, "memory_share": 0.25, "model_flops": 2e15, "executed_flops": 3e15,
    "memory": {"argument": 2**30, "temporary": 2**31, "code": 2**20},
    "roofline": {
        "compute": 0.5, "memory": 0.25, "interconnect": 0.125, "seconds": 0.5,
        "bound_by": "compute", "mfu_bound": 0.62,
    },
    "collectives": [
        {"kind": "all-gather", "num_messages": 54, "sent_bytes": 2**29, "num_overlapped": 27}
    ],
    "unknown_loops": [],
}  # fmt: skip
REFUSED = {
    "name": "sampler <b>", "batch_size": 64, "fits": False, "needed_bytes": None, "memory": None,
    "roofline": None, "model_flops": 1e15,
}  # fmt: skip
PLAN = {
    "topology": {"name": "v5p:4x4x4", "num_devices": 64, "mesh": {"data": 4, "fsdp": 16}},
    "chip": {
        "name": "v5p", "bf16_flops": 459e12, "memory_bytes": 95 * 2**30,
        "memory_bandwidth": 2765e9, "link_bandwidth": 600e9, "source": "https://example.org/v5p",
    },
    "state": {
        "num_parameters": 2_000_000_000, "parameter_bytes": 5e8, "average_bytes": 5e8,
        "optimizer_bytes": 1e9,
    },
    "stages": [STAGE], "sampler": REFUSED, "training": None,
    "largest_batch": {"batch_size": 128, "refused": 192}, "refusal": "sampler <b> does not fit",
}  # fmt: skip


def test_the_page_holds_the_figures_and_escapes_names() -> None:
    page = render_plan(PLAN)
    figures = ("3 GiB", "25 %", "62 %", "500 ms", "all-gather", "512 MiB", "459 TFLOP/s")
    for text in ("Plan for v5p:4x4x4", "data 4 x fsdp 16", *figures, "sampler &lt;b&gt; does not"):
        assert text in page, text
    assert "<b>" not in page and "<script" not in page


def test_the_choice_of_what_is_computed_again_is_told() -> None:
    remat = {"policy": "dots", "reason": "dots is the least work that fits 31 GiB a device"}
    page = render_plan({**PLAN, "remat": remat})
    assert "model.remat" in page and "the least work that fits 31 GiB a device" in page
    assert "model.remat" not in render_plan({**PLAN, "remat": None})


def test_it_is_written_beside_its_json(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "plan_v5p_4x4x4.json"
    path.write_text(json.dumps(PLAN))
    page = write_plan_page(path)
    assert page.name == "plan_v5p_4x4x4.html"
    assert page.read_text() == render_plan(PLAN)


def test_bytes_have_binary_prefixes() -> None:
    assert [byte_count(v) for v in (0, 1023, 1024, 1.5 * 2**30, None)] == [
        "0 B", "1023 B", "1 KiB", "1.5 GiB", "\N{EN DASH}",
    ]  # fmt: skip


def test_stages_with_sizes_are_listed_and_older_files_still_are() -> None:
    newer = [
        {**STAGE, "strides": [4, 2, 2], "shape": [4, 16, 16]},
        {**STAGE, "strides": [1, 1, 1], "shape": [16, 32, 32]},
    ]
    page = render_plan({**PLAN, "stages": newer})
    assert "<td>4 x 2 x 2</td><td>4 x 16 x 16</td>" in page
    older = [{**STAGE, "frame_stride": 4, "num_frames": 5}]
    assert "<td>4</td><td>5</td>" in render_plan({**PLAN, "stages": older})
    assert 'id="stages"' not in render_plan(PLAN)


def test_names_from_a_plan_stay_text() -> None:
    evil = "\"'><script>alert(1)</script>"
    stage = {**STAGE, "name": evil, "strides": [evil, 2, 2], "shape": [evil, 1, 1]}
    topology = {"name": evil, "num_devices": evil, "mesh": {evil: evil}}
    plan = {**PLAN, "stages": [stage], "topology": topology, "refusal": evil}
    page = render_plan({**plan, "chip": {**PLAN["chip"], "name": evil, "source": evil}})
    assert "<script" not in page and "\"'>" not in page
    assert page.count("&#34;&#39;&gt;&lt;script&gt;") >= 9
