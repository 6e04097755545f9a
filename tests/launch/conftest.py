"""What all tests of the launchers share."""

import pathlib

import pytest

from tests.launch.stand_ins import Cloud
from tests.tiny import REPO


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Cloud:
    """Stand-ins for cluster commands, with an empty state."""
    return Cloud(tmp_path)


@pytest.fixture(autouse=True)
def _at_the_repository_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers name config files from there."""
    monkeypatch.chdir(REPO)
