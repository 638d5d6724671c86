"""Search entries of the command line: commands by their purpose, options by their help.

The command line is above this layer, so its sources are read, not imported: the table of commands in ``cli/main.py``,
and the class ``Args`` of each command with the classes that it inherits options from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from underhood.curriculum.search.code_entries import package_folder
from underhood.curriculum.search.entries import SearchEntry
from underhood.recipes.stages.registry import all_stages

ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")
SETTINGS = ("recipes/spec.py", "recipes/finetune_spec.py")
"""Where options live that a command inherits from a recipe."""


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def command_entries() -> Iterator[SearchEntry]:
    """Commands in the order of the help page, then their options, each once: the commands that share it are named."""
    folder = package_folder() / "cli"
    main = parsed(folder / "main.py")
    modules: dict[str, str] = _literal(main, "MODULES")
    purposes = {verb: purpose for group in _literal(main, "VERBS").values() for verb, purpose in group.items()}
    purposes |= {stage.name: stage.command for stage in all_stages()}
    classes = _classes([*sorted(folder.glob("*.py")), *(package_folder() / name for name in SETTINGS)])
    options: dict[tuple[str, str], list[str]] = {}
    for verb, purpose in purposes.items():
        file = folder / f"{modules.get(verb, verb)}.py"
        args = _class(parsed(file), "Args") if file.is_file() else None
        yield SearchEntry(
            kind="command",
            target=f"underhood {verb}",
            title=f"underhood {verb}",
            named=verb,
            summary=purpose,
            text="" if args is None else _described(args),
            page=f"commands.html#{verb}",
            see=f"underhood {verb} --help",
        )
        for name, text in ({} if args is None else _options(args, classes)).items():
            options.setdefault((name, text), []).append(verb)
    for (name, text), verbs in options.items():
        flag = f"--{name.replace('_', '-')}"
        also = f" (also {', '.join(verbs[1:])})" if verbs[1:] else ""
        yield SearchEntry(
            kind="option",
            target=f"underhood {verbs[0]} {flag}",
            title=f"underhood {verbs[0]} {flag}",
            named=name.replace("_", " "),
            summary=text + also,
            page=f"commands.html#{verbs[0]}",
            see=f"underhood {verbs[0]} --help",
        )


def _literal(tree: ast.Module, name: str) -> Any:
    """The value of a constant of a module."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name and isinstance(node, (ast.Assign, ast.AnnAssign)):
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise LookupError(f"no constant {name}")


def _classes(files: list[Path]) -> dict[str, ast.ClassDef]:
    """Classes by name; ``Args`` is each command's own and left out."""
    return {
        node.name: node
        for file in files
        for node in parsed(file).body
        if isinstance(node, ast.ClassDef) and node.name != "Args"
    }


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _described(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\nAttributes:\n")[0]


def _options(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """Help by name of the options of a class, inherited ones first; positional arguments are not options."""
    options: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            options |= _options(classes[base.id], classes)
    described = _attribute_section(ast.get_docstring(node) or "")
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name, kind = field.target.id, ast.unparse(field.annotation)
        if kind.startswith(("ClassVar", "Positional")):
            continue
        text = described.get(name, "")
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            text = below.value.value
        if text:
            options[name] = " ".join(text.replace("``", "").split())
    return options


def _attribute_section(docstring: str) -> dict[str, str]:
    """Texts by field name of the section ``Attributes:``."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("\nAttributes:\n")[2].splitlines():
        entry = ATTRIBUTE.match(line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2][:1].upper() + entry[2][1:])
        elif line.startswith(" " * 8):
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return texts
