"""Events made by hand are those of the published messages, as tensorboardX has them."""

import math

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.record_writer import masked_crc32c as reference_crc32c

from tpdiff_jax.run_log import event_bytes


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**31, 2**53 + 1, -1])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, 1e300, -1e300, 1e-50, math.inf, 3, 2**40])
def test_a_scalar_is_the_published_message(step: int, value: float) -> None:
    summary = Summary(value=[Summary.Value(tag="loss/é", simple_value=value)])
    wanted = Event(wall_time=12.25, step=step, summary=summary)
    found = event_bytes.event(12.25, step=step, values=[event_bytes.scalar_value("loss/é", value)])
    assert found == wanted.SerializeToString(deterministic=True)


def test_a_number_that_is_none_is_kept() -> None:
    found = Event.FromString(
        event_bytes.event(0.5, values=[event_bytes.scalar_value("a", math.nan)])
    )
    assert math.isnan(found.summary.value[0].simple_value) and found.step == 0


def test_pictures_texts_and_starts_are_the_published_messages() -> None:
    encoded = bytes(range(256)) * 3
    image = Summary.Image(height=40, width=200, colorspace=3, encoded_image_string=encoded)
    tensor = TensorProto(dtype="DT_STRING", string_val=["    {\n    é".encode()])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    wanted = Event(
        wall_time=1e9,
        step=7,
        summary=Summary(
            value=[
                Summary.Value(tag="samples", image=image),
                Summary.Value(tag="config", metadata=metadata, tensor=tensor),
            ]
        ),
    )
    values = [
        event_bytes.image_value("samples", encoded, height=40, width=200),
        event_bytes.text_value("config", "    {\n    é"),
    ]
    assert Event.FromString(event_bytes.event(1e9, step=7, values=values)) == wanted
    start = Event(wall_time=2.0, step=9, session_log=SessionLog(status=SessionLog.START))
    assert event_bytes.event(2.0, step=9, is_start=True) == start.SerializeToString()
    version = Event(wall_time=2.0, file_version="brain.Event:2")
    assert event_bytes.event(2.0, file_version="brain.Event:2") == version.SerializeToString()


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(range(256)) * 5, b"\xff" * 33])
def test_checksums_are_the_published_ones(data: bytes) -> None:
    assert event_bytes.masked_crc32c(data) == reference_crc32c(data)
    crc = 0xE3069283  # RFC 3720's CRC-32C of 123456789
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert event_bytes.masked_crc32c(b"123456789") == masked
