"""Notebooks: made from their sources, executed, small, and still right when they are executed anew."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import make_notebooks
from needs import smollm2_gguf
from tinyrun import TINY

SOURCES = sorted(make_notebooks.SOURCES.glob("*.py"))
SHORT = {"--minutes 5": f"{shlex.join(TINY)} --context-length 256", "--steps 24": "--steps 2", "pairs * 4": "pairs"}
"""What makes the notebooks quick enough for a test; everything else is executed as it is."""


def source_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def committed(file: Path) -> NotebookNode:
    return nbformat.read(file.with_suffix(".ipynb"), as_version=4)


def printed(notebook: NotebookNode) -> str:
    """All text that the cells printed or returned."""
    outputs = (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def cells_with_outputs(notebook: NotebookNode) -> list[int]:
    return [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.outputs]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_committed_notebook_is_made_from_its_source(file: Path):
    notebook = committed(file)
    nbformat.validate(notebook)
    expected = make_notebooks.notebook_of(source_of(file))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in expected.cells
    ], "python tools/make_notebooks.py"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_committed_notebook_is_executed_small_and_names_no_machine(file: Path):
    notebook, path = committed(file), file.with_suffix(".ipynb")
    assert path.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", printed(notebook))


def test_cell_kinds_become_markdown_code_and_bash():
    source = "# %% [markdown]\n# # Title\n#\n# Prose.\n\n# %%\nx = 1\n\n# %% [bash]\n# echo a\n"
    cells = make_notebooks.notebook_of(source, {"echo a": "echo b"}).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "# Title\n\nProse."),
        ("code", "x = 1"),
        ("code", "%%bash\necho b"),
    ]


@pytest.mark.parametrize("source", ["x = 1\n# %%\n", "# %% [bash]\necho a\n"], ids=["no cell", "no comment"])
def test_source_with_a_mistake_is_refused(source: str):
    with pytest.raises(ValueError, match="begin"):
        make_notebooks.notebook_of(source)


def test_failing_cell_fails_the_notebook(tmp_path: Path):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="division by zero"):
        make_notebooks.execute(make_notebooks.notebook_of("# %%\n1 / 0\n"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_notebooks_executed_anew_show_what_the_committed_ones_show(tmp_path: Path):
    """With a build of seconds and a few steps of fine-tuning: the same cells show something, with each key line.

    What depends on a trained model (that the facts are right afterwards) is held by the committed notebooks.
    """
    smollm2_gguf()
    keys = {
        "1_build_and_talk": [r"log [\d,]+ = \d\.\d\d", r"> How do I delete a directory tree\?\n.", r"--- base"],
        "2_one_token": [r"largest difference .* \d\.\de[+-]\d\d", r"block 0: head \d", r"after block 0"],
        "3_fine_tune": [r"\d of 3 facts", r"before:", r"adapter_model\.safetensors"],
    }
    assert [file.stem for file in SOURCES] == list(keys)
    for file in SOURCES:
        before = committed(file)
        fresh = make_notebooks.execute(make_notebooks.notebook_of(source_of(file), SHORT), tmp_path)
        assert cells_with_outputs(fresh) == cells_with_outputs(before), file.stem
        for key in keys[file.stem]:
            assert re.search(key, printed(fresh)), f"{file.stem}: {key}"
            assert re.search(key, printed(before)), f"{file.stem} as committed: {key}"
