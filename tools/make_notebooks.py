"""Executed notebooks from readable sources: ``docs/notebooks/NAME.py`` becomes ``NAME.ipynb`` with its outputs.

    python tools/make_notebooks.py                     all of them; the first builds a model, which the others use
    python tools/make_notebooks.py --minutes 1 --out /tmp/notebooks

A source is Python in cells: ``# %%`` begins code, ``# %% [markdown]`` prose, ``# %% [bash]`` commands of the shell;
lines of prose and commands are comments. Editors that know this percent format run the cells as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from traitlets.config import Config

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "docs" / "notebooks"
CELL = re.compile(r"^# %%(?: \[(markdown|bash)\])?\n", re.MULTILINE)
ENCRYPTED = Config(KernelManager={"transport_encryption": "auto"})
"""What is said to the kernel goes over local ports that other users of the machine may listen to."""
TIMEOUT = 3600
"""Seconds that a cell may take."""


def notebook_of(source: str, replace: Mapping[str, str] | None = None) -> NotebookNode:
    """The notebook of a source, not yet executed.

    Args:
        replace: texts of the source and what takes their place, such as another number of minutes.

    Raises:
        ValueError: the source does not begin with a cell, or a line of prose or commands is not a comment.
    """
    for old, new in (replace or {}).items():
        source = source.replace(old, new)
    before, *pieces = CELL.split(source)
    if before.strip():
        raise ValueError(f"a source begins with '# %%', got {before.splitlines()[0]!r}")
    cells = []
    for number, (kind, text) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        text = text.strip("\n") if kind is None else _without_comment_signs(text)
        if kind == "markdown":
            cell = v4.new_markdown_cell(text)
        else:
            cell = v4.new_code_cell(f"%%bash\n{text}" if kind == "bash" else text)
        cell["id"] = f"cell-{number}"  # by number, so that a new run changes outputs only
        cells.append(cell)
    return v4.new_notebook(cells=cells)


def _without_comment_signs(text: str) -> str:
    lines = text.strip("\n").splitlines()
    wrong = [line for line in lines if not re.match(r"#( |$)", line)]
    if wrong:
        raise ValueError(f"lines of prose and commands begin with '# ', got {wrong[0]!r}")
    return "\n".join(line[2:] for line in lines)


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Runs all cells in `folder` in a kernel of this Python, and keeps what they print and show.

    Raises:
        CellExecutionError: a cell failed.
    """
    with tempfile.TemporaryDirectory() as settings:
        # Nothing of the user's IPython, plain lines in place of progress bars, and `underhood` of this environment.
        changes = {"IPYTHONDIR": settings, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
        changes["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            config=ENCRYPTED,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=os.environ | changes)
    return nbformat.reads(without_own_folders(nbformat.writes(notebook)), as_version=4)


def without_own_folders(text: str) -> str:
    """The text with the names of this environment's and this user's folders as any other reader would see them."""
    return text.replace(sys.prefix, ".venv").replace(str(Path.home()) + os.sep, "~" + os.sep)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long the first notebook builds")
    parser.add_argument("--folder", type=Path, help="where the notebooks run; a new temporary folder if left out")
    parser.add_argument("--out", type=Path, default=SOURCES, help="where the .ipynb files go")
    parser.add_argument("--only", help="a word in the name of the one to make")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        args.out.mkdir(parents=True, exist_ok=True)
        for file in sorted(SOURCES.glob("*.py")):
            if args.only and args.only not in file.stem:
                continue
            replace = {"--minutes 5": f"--minutes {args.minutes:g}"}
            notebook = execute(notebook_of(file.read_text(encoding="utf-8"), replace), folder)
            out = args.out / f"{file.stem}.ipynb"
            nbformat.write(notebook, out)
            print(f"{out}: {len(notebook.cells)} cells, {out.stat().st_size / 1000:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
