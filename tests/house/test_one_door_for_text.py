"""One door for text: files of users are read by `core.text_files` only, so every encoding is known everywhere."""

from __future__ import annotations

import ast

import pytest

from needs import REPOSITORY

PACKAGE = REPOSITORY / "src" / "underhood"
DOOR = "core/text_files.py"
OWN_FILES = {
    "core/checkpoint.py": "manifests that it wrote",
    "core/milestone.py": "the milestones of the package",
    "core/provenance.py": "/proc",
    "core/run_lock.py": "/proc",
    "core/runlog.py": "logs that it wrote",
    "curriculum/excerpts.py": "sources of the package",
    "curriculum/game.py": "a file of the package, notes of a run",
    "curriculum/pages/interactive/__init__.py": "files of the package",
    "curriculum/pages/reference.py": "docs and sources of the package",
    "curriculum/results.py": "results that it wrote",
    "curriculum/search/code_entries.py": "sources of the package",
    "curriculum/years/measure.py": "a file that it wrote",
    "curriculum/search/command_entries.py": "sources of the package",
    "curriculum/search/doc_entries.py": "docs of the package",
    "curriculum/topics.py": "a file of the package",
    "evals/table.py": "results of a run",
    "infer/memory.py": "/sys",
    "infer/packaged_model.py": "a file in a wheel, as bytes",
    "infer/stages.py": "checkpoints",
    "inspect/trace.py": "JSON that it wrote",
    "recipes/export/card.py": "notes of a run",
    "recipes/export/export.py": "the card that it writes",
    "recipes/export/huggingface.py": "JSON that it writes",
    "recipes/export/tuning.py": "notes of a run",
    "recipes/feedback.py": "pairs that it wrote",
    "recipes/finetuned_run.py": "results that it wrote",
    "recipes/report/run_reader.py": "notes of a run",
    "recipes/run.py": "notes of a run",
    "recipes/training_data.py": "examples that it wrote",
    "ui/theme.py": "files of the package",
    "web/inside/bundle.py": "scripts of the package",
    "web/inside/file.py": "files of the package",
    "web/run_views.py": "notes of a run",
    "web/suggestions.py": "notes of a run",
}
"""Files that read text which this program wrote itself, or the system did, always in UTF-8."""


def text_reads(source: str) -> list[int]:
    """Lines that open or read a file as text, or read all of standard input."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name in ("read_text", "write_text") and isinstance(called, ast.Attribute):
            lines.append(node.lineno)
        elif name == "open" and opens_a_file(called):
            words = [*node.args, *(keyword.value for keyword in node.keywords)]
            modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if not any("b" in mode and set(mode) <= set("rwxab+") for mode in modes):
                lines.append(node.lineno)
        elif name == "read" and ast.unparse(called) == "sys.stdin.read":
            lines.append(node.lineno)
    return sorted(lines)


def opens_a_file(called: ast.expr) -> bool:
    """Whether it is the built-in ``open`` or a path's, not a class method of that name."""
    if not isinstance(called, ast.Attribute):
        return True
    owner = called.value
    is_class = isinstance(owner, ast.Name) and (owner.id[0].isupper() or owner.id in ("os", "webbrowser", "cls"))
    return not is_class and ast.unparse(owner) not in ("self.reader", "reader")


def test_users_text_is_read_by_one_door():
    reads = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith("path/") and name != DOOR and (lines := text_reads(file.read_text(encoding="utf-8"))):
            reads[name] = lines
    strangers = {name: lines for name, lines in reads.items() if name not in OWN_FILES}
    assert not strangers, "read it by core.text_files, or say in OWN_FILES why its encoding is known"
    assert set(OWN_FILES) == set(reads), "take out what reads no text any more"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text(encoding='utf-8')", 1),
        ("Path(p).open()", 1),
        ("open(p, 'w')", 1),
        ("sys.stdin.read()", 1),
        ("path.open('rb')", 0),
        ("path.open('ab+', buffering=0)", 0),
        ("Run.open(path)", 0),
        ("os.open(path, os.O_RDONLY)", 0),
        ("read_text(path)", 0),
    ],
)
def test_reads_are_recognised(source: str, count: int):
    assert len(text_reads(source)) == count
