"""Naming rules: plain words in prose, locals that say what they hold, one class per name, no import cycles.

`NOT_YET` lists the folders that still break a rule. The list only shrinks: a folder that keeps every rule must not be
in it.
"""

from __future__ import annotations

import ast
import graphlib
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from needs import REPOSITORY

PACKAGE = REPOSITORY / "src" / "underhood"
FOLDERS = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
DATED = {"decisions.md"}  # a record of past decisions keeps its wording
NOT_YET: set[str] = set()
DUPLICATES_LEFT: set[str] = set()
CIRCLES_LEFT: set[tuple[str, str]] = set()

PROSE = {
    "stands": re.compile(r"\b(?:stands?|stood)\b(?!-)", re.IGNORECASE),
    "lies": re.compile(r"\b(?:lies|lay)\b(?! out\b)", re.IGNORECASE),
    "is no X": re.compile(
        r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more than\b|less than\b|fewer\b|better\b|worse\b)[a-z]",
        re.IGNORECASE,
    ),
    ", for it": re.compile(r", for (?:it|they|there|that|this|these|those|we|he|she|you)\b(?! to\b| who\b| that\b)"),
    "what is X of": re.compile(r"\bwhat (?:is|was|has|it|they) \w+ (?:of|in|is|are)\b", re.IGNORECASE),
    "who sees whom": re.compile(r"\bsees? whom\b|\bwhom (?:it|they) (?:may|can|sees?)\b", re.IGNORECASE),
}
LOCALS = {"found", "one", "part", "place", "said", "asked", "FEW"}


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Comments and string literals of a Python source with their lines; neighbouring comments are one text."""
    comment_line, comment = 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment_line = comment_line or token.start[0]
            comment += " " + token.string.lstrip("#")
        elif token.type in (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            yield token.start[0], token.string
        if comment and token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE):
            yield comment_line, comment
            comment_line, comment = 0, ""


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """A Markdown page's paragraphs with their lines, code blocks left out."""
    page = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), page, flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"(?:.+\n?)+", page):
        yield page.count("\n", 0, match.start()) + 1, match[0]


def banned_phrases(pieces: Iterator[tuple[int, str]], name: str) -> list[str]:
    flat = ((line, " ".join(text.split())) for line, text in pieces)
    return [
        f"{name}:{line}: {rule}: …{text[max(0, match.start() - 40) : match.end() + 40]}…"
        for line, text in flat
        for rule, pattern in PROSE.items()
        for match in pattern.finditer(text)
    ]


def banned_locals(tree: ast.AST, name: str) -> list[str]:
    """Assignment, loop and comprehension targets and parameters (fields of classes too) with a word of `LOCALS`."""
    names = {
        (node.lineno, node.id if isinstance(node, ast.Name) else node.arg)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    return [f"{name}:{line}: local {word}" for line, word in sorted(names) if word in LOCALS]


def faults_of(folder: Path) -> list[str]:
    faults = []
    for file in sorted(folder.rglob("*.py")):
        source, name = file.read_text(encoding="utf-8"), str(file.relative_to(PACKAGE.parent))
        faults += banned_phrases(texts(source), name) + banned_locals(ast.parse(source), name)
    return faults


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_uses_plain_words_and_locals_that_say_what_they_hold(folder: str):
    faults = faults_of(PACKAGE / folder)
    if folder in NOT_YET:
        assert faults, f"{folder} keeps every rule: take it off NOT_YET"
    else:
        assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in DATED], ids=lambda page: page.name)
def test_page_uses_plain_words(page: Path):
    faults = banned_phrases(paragraphs(page.read_text(encoding="utf-8")), page.name)
    if page.name in NOT_YET:
        assert faults, f"{page.name} keeps every rule: take it off NOT_YET"
    else:
        assert not faults, "\n".join(faults)


def test_rules_see_what_they_forbid():
    source = '''"""What is known of it
    stands here."""
x = f"{y} is no path"  # it works, for it
# must
found = [one for one in x]  # there is no standard, no longer understood
'''
    rules = [fault.split(": ")[1] for fault in banned_phrases(texts(source), "x")]
    assert sorted(rules) == [", for it", "is no X", "stands", "what is X of"]
    assert [fault.split()[-1] for fault in banned_locals(ast.parse(source), "x")] == ["found", "one"]


def test_class_names_are_unique():
    """The per-command `Args` aside."""
    places = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name != "Args":
                places[node.name].append(str(file.relative_to(PACKAGE)))
    duplicates = {name: files for name, files in places.items() if len(files) > 1}
    assert {name: files for name, files in duplicates.items() if name not in DUPLICATES_LEFT} == {}
    assert set(duplicates) >= DUPLICATES_LEFT, "shorten DUPLICATES_LEFT"


def imports_of(file: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports anywhere, inside functions too, except for type checking only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in members}
    return names & set(modules)


def test_files_import_each_other_in_no_circle():
    modules = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {name: imports_of(file, modules) - {name} for name, file in modules.items()}
    for importer, imported in CIRCLES_LEFT:
        graph[f"underhood.{importer}"].discard(f"underhood.{imported}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def glossary() -> dict[str, list[str]]:
    """The terms of docs/glossary.md and what their code column names."""
    page = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    return {row[0]: re.findall(r"`([^`]+)`", row[-1]) for row in rows if row[0] != "term" and row[0].strip("-")}


def test_glossary_names_code_that_exists():
    sources = "\n".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    words = set(re.findall(r"\w+", sources))
    missing = {
        (term, name)
        for term, names in glossary().items()
        for name in names
        if not ((PACKAGE / name).exists() if "/" in name else set(re.findall(r"\w+", name)) <= words)
    }
    assert len(glossary()) >= 60
    assert all(glossary().values()), "each term names a file or a class"
    assert missing == set()
