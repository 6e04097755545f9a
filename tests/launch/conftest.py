"""What all tests of the launchers share."""

import pathlib

import pytest

from tests.launch.stand_ins import Cloud


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Cloud:
    """Stand-ins for cluster commands, with an empty state."""
    return Cloud(tmp_path)
