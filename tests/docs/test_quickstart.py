"""docs/quickstart.ipynb runs from top to bottom, and lies in the repository without outputs."""

import ast
import json
import os
import re

import pytest

from tests.tiny import REPO

PATH = REPO / "docs" / "quickstart.ipynb"
NOTEBOOK = json.loads(PATH.read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
WORDS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown"]


def test_it_holds_no_outputs_and_little_else() -> None:
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert set(NOTEBOOK["metadata"]) == {"kernelspec", "language_info"}
    assert PATH.stat().st_size < 20_000


def test_the_first_cell_says_how_to_install_and_names_no_host() -> None:
    assert "%pip install" in WORDS[0] and "TPU" in WORDS[0]
    assert "://" not in "".join(WORDS + CODE)


def test_its_code_is_python_and_its_links_lead_to_pages() -> None:
    for text in CODE:
        ast.parse(text)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", "\n".join(WORDS))
    assert len(targets) > 4
    for target in targets:
        assert (PATH.parent / target).is_file(), target


@pytest.mark.slow
def test_it_runs_and_shows_a_loss_and_videos(tmp_path, monkeypatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("QUICKSTART_STEPS", "6")
    monkeypatch.setenv("QUICKSTART_WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": PATH.parent}}
    )
    client.execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    kinds = [kind for data in shown for kind in data if kind.startswith("image/")]
    assert kinds == ["image/png", "image/gif"]
    said = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    assert re.search(r"\(8, \d+, \d+, \d+, 1\) uint8 .* after 6 steps", said)
    assert re.search(r"label_accuracy +\d", said)
    assert json.loads(PATH.read_text()) == NOTEBOOK, "running it must not change the file"
