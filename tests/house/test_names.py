"""Naming rules: plain words in prose, locals that say what they hold, one class per name, no import cycles.

They hold for the package, its JavaScript, the tests and the benchmarks; only this file spells what it forbids.
"""

from __future__ import annotations

import ast
import graphlib
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import javascript
import pytest

from needs import REPOSITORY

PACKAGE = REPOSITORY / "src" / "underhood"
FOLDERS = [
    *(file.parent for file in sorted(PACKAGE.glob("*/__init__.py"))),
    *(folder for folder in sorted((REPOSITORY / "tests").iterdir()) if any(folder.glob("*.py"))),
    REPOSITORY / "benchmarks",
    REPOSITORY / "tools",
]
SCRIPTS = sorted(PACKAGE.rglob("*.js"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
DATED = {"decisions.md"}  # a record of past decisions keeps its wording
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
NOT_FIRST = {"What", "Who", "Whom", "How", "Which", "Where", "When", "This", "These", "That", "It"}
"""Words that do not name a thing, so a module's docstring must not begin with them."""

FIRST_SENTENCE_MAX = 160


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


def faults_of(files: Iterable[Path]) -> list[str]:
    faults = []
    for file in files:
        source, name = file.read_text(encoding="utf-8"), str(file.relative_to(REPOSITORY))
        faults += banned_phrases(texts(source), name) + banned_locals(ast.parse(source), name)
    return faults


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(REPOSITORY)))
def test_folder_uses_plain_words_and_locals_that_say_what_they_hold(folder: Path):
    files = [file for file in sorted(folder.rglob("*.py")) if file != Path(__file__)]
    assert files
    assert not faults_of(files), "\n".join(faults_of(files))


def test_helpers_of_the_tests_use_plain_words_and_locals_that_say_what_they_hold():
    faults = faults_of(sorted((REPOSITORY / "tests").glob("*.py")))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_uses_plain_words_and_names_that_say_what_they_hold(script: Path):
    source = script.read_text(encoding="utf-8")
    faults = banned_phrases(javascript.texts(source), script.name)
    faults += [f"{script.name}:{line}: {name}" for line, name in javascript.names(source) if name in LOCALS]
    assert not faults, "\n".join(faults)


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring's first paragraph, on one line."""
    paragraph = " ".join(docstring.strip().partition("\n\n")[0].split())
    match = re.match(r"(.*?[.:!?][\"”)]?)(?=\s+[^a-z]|$)", paragraph)
    return match[1] if match else paragraph


def docstring_faults(tree: ast.Module, name: str) -> list[str]:
    """First sentences that are missing (modules), long, unfinished, or (modules) begin with a question word."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
    faults = []
    for node in nodes:
        is_module, docstring = isinstance(node, ast.Module), ast.get_docstring(node)
        if docstring is None:
            faults += [f"{name}: no docstring"] if is_module else []
            continue
        sentence, line = first_sentence(docstring), getattr(node, "lineno", 1)
        if len(sentence) > FIRST_SENTENCE_MAX or not re.search(r"[.:!?][\"”)]?$", sentence):
            faults.append(f"{name}:{line}: {len(sentence)} characters: {sentence}")
        if is_module and sentence.split()[0].strip(",:") in NOT_FIRST:
            faults.append(f"{name}: begins with {sentence.split()[0]}: {sentence}")
    return faults


@pytest.mark.parametrize("folder", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda file: file.parent.name)
def test_first_sentence_of_a_docstring_is_short_and_names_the_thing(folder: Path):
    """That it uses the field's term cannot be checked; that it is a sentence, and no riddle, can."""
    faults = []
    for file in sorted(folder.parent.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if source.strip():
            faults += docstring_faults(ast.parse(source), str(file.relative_to(PACKAGE)))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in DATED], ids=lambda page: page.name)
def test_page_uses_plain_words(page: Path):
    faults = banned_phrases(paragraphs(page.read_text(encoding="utf-8")), page.name)
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


def test_rules_for_scripts_see_what_they_forbid():
    source = """// It stands
// here.
const { one, kept: two } = { found: "a // b", ...found }, area = 6 / 2 / 3;
const text = `is no ${part.place + `${"}"}`} path`.replace(/["`]/g, "");
"""
    assert [fault.split(": ")[1] for fault in banned_phrases(javascript.texts(source), "x")] == ["stands"]
    assert [(line, name) for line, name in javascript.names(source) if name in LOCALS] == [
        (3, "one"),
        (3, "found"),
        (4, "part"),
    ]


def test_rules_for_docstrings_see_what_they_forbid():
    source = f'''"""Which thing it is."""
def good():
    """A sum, e.g. of numbers: ``a + b``. More words"""
def unfinished():
    """A sum"""
def long():
    """A sum of {"very " * 40}long things."""
'''
    assert [fault.partition(": ")[0] for fault in docstring_faults(ast.parse(source), "x")] == ["x", "x:4", "x:6"]
    assert docstring_faults(ast.parse("a = 1"), "x") == ["x: no docstring"]
    text = "A sum, e.g. of\n  numbers (Gauß 1809). Then more.\n\nRest"
    assert first_sentence(text) == "A sum, e.g. of numbers (Gauß 1809)."


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
