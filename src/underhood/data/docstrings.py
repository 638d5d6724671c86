"""Docstrings of the standard library with their names and signatures, read without running any of its code.

Python sources are parsed, never imported (some modules print poems or open browsers). Only modules written in C,
which have no source to parse, are imported, from a list of names known to do nothing on import.
"""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from underhood.data.signatures import c_parameter, class_signature, definitions, signature_of

SKIPPED_FOLDERS = {
    *("test", "tests", "idlelib", "turtledemo", "site-packages", "dist-packages", "ensurepip", "pydoc_data"),
    *("__pycache__", "lib-dynload", "_pyrepl"),
}
SKIPPED_MODULES = {"this", "antigravity", "__phello__", "turtle"}

# Modules that people know under another name: Python twins of C modules, and what sits behind os.path.
PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_pydatetime": "datetime",
    "_weakrefset": "weakref",
    "_py_abc": "abc",
    "genericpath": "os.path",
    os.path.__name__: "os.path",
}

C_MODULES = {
    **{name: name for name in ("builtins", "math", "cmath", "time", "itertools", "sys", "gc", "errno", "marshal")},
    **{name: name for name in ("array", "binascii", "zlib", "select", "unicodedata", "atexit", "faulthandler")},
    **{name: name for name in ("mmap", "fcntl", "grp", "pwd", "resource", "syslog", "termios", "msvcrt", "winreg")},
    "posix": "os",
    "nt": "os",
    "_io": "io",
    "_collections": "collections",
    "_functools": "functools",
    "_operator": "operator",
    "_struct": "struct",
    "_socket": "socket",
    "_random": "random",
    "_csv": "csv",
    "_bisect": "bisect",
    "_heapq": "heapq",
    "_json": "json",
    "_thread": "_thread",
    "_weakref": "weakref",
    "_codecs": "codecs",
    "_datetime": "datetime",
    "_decimal": "decimal",
    "_hashlib": "hashlib",
    "_ssl": "ssl",
    "_lzma": "lzma",
    "_bz2": "bz2",
    "_sqlite3": "sqlite3",
    "_ctypes": "ctypes",
    "_signal": "signal",
    "_locale": "locale",
    "_warnings": "warnings",
    "_tracemalloc": "tracemalloc",
    "_asyncio": "asyncio",
    "_string": "string",
    "_sre": "re",
    "_stat": "stat",
    "_contextvars": "contextvars",
    "_queue": "queue",
    "_pickle": "pickle",
    "_uuid": "uuid",
    "_elementtree": "xml.etree.ElementTree",
    "_curses": "curses",
}
"""Modules written in C, and the module under which people meet them. Those that this machine lacks are left out."""


@dataclass(frozen=True)
class Entry:
    """One documented thing.

    Attributes:
        name: dotted name that a user would type, e.g. ``os.path.join`` or ``str.split``; a module's own name.
        document: the module whose document holds it, e.g. ``asyncio.tasks`` for ``asyncio.gather``.
        owner: the module that the name starts with, e.g. ``asyncio`` for ``asyncio.gather``.
        kind: module, class, function, method or property.
        signature: the text between the parentheses, or None where it is unknown or there are none.
        parameters: their names, with stars, without self.
        doc: the docstring, dedented.
    """

    name: str
    document: str
    owner: str
    kind: str
    signature: str | None
    parameters: tuple[str, ...]
    doc: str


@dataclass(frozen=True)
class Library:
    """The standard library of this Python.

    Attributes:
        entries: every documented thing; documents in order of name, each in source order.
        names: every dotted name that exists, documented or not, imported names included.
    """

    entries: tuple[Entry, ...]
    names: frozenset[str]


def standard_library() -> Library:
    """Reads the standard library (about 2 s)."""
    collecting = gc.isenabled()
    gc.disable()  # a third of the time of parsing goes into looking for cycles that aren't there
    try:
        entries, exports, names = _parse_sources()
    finally:
        if collecting:
            gc.enable()
    entries = [_under_public_name(entry, exports) for entry in entries]
    names |= set(exports.values())
    known = {entry.name for entry in entries}
    for internal, public in C_MODULES.items():
        module = _c_module(internal)
        if module is None:
            continue
        shown = None if internal == public else names  # io shows only a part of _io
        names |= _c_names(module, public, shown)
        new = [entry for entry in _read_c_module(module, public, shown) if entry.name not in known]
        known.update(entry.name for entry in new)
        entries += new
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.document, entry.kind != "module")):
        first.setdefault(entry.name if entry.kind != "module" else f"module {entry.name}", entry)
    return Library(tuple(first.values()), frozenset(names | known))


def _parse_sources() -> tuple[list[Entry], dict[str, str], set[str]]:
    """Entries of all Python sources; full name → shorter name under which a package shows it; all bound names."""
    root = Path(sysconfig.get_path("stdlib"))
    trees: dict[str, ast.Module] = {}
    packages: set[str] = set()
    for path in _source_files(root):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
            packages.add(".".join(parts))
        try:
            trees[".".join(parts)] = _without_bodies(ast.parse(path.read_bytes()))
        except (SyntaxError, ValueError, OSError):
            continue  # lib2to3 and encodings keep a few files that are not valid Python 3
    entries: list[Entry] = []
    names: set[str] = set(trees)
    for module, tree in trees.items():
        public = PUBLIC_NAMES.get(module, module)
        doc = ast.get_docstring(tree)
        if doc:
            entries.append(Entry(public, public, public, "module", None, (), doc))
        entries += _walk(tree.body, public, public, inside_class=False)
        package = module if module in packages else module.rpartition(".")[0]
        names.update(f"{public}.{name}" for name in _bound(tree.body, package, trees))
    return entries, _exports(trees, packages), names


def _without_bodies(tree: ast.Module) -> ast.Module:
    """The same tree with only the docstring of each function: a tenth of the memory."""
    for node in definitions(tree.body):
        _empty(node)
    return tree


def _empty(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if isinstance(node, ast.ClassDef):
        for inner in definitions(node.body):
            _empty(inner)
    else:
        del node.body[1:]
        if not isinstance(node.body[0], ast.Expr):
            node.body = [ast.Pass()]


def _bound(body: list[ast.stmt], package: str, trees: dict[str, ast.Module]) -> Iterator[str]:
    """Names that a body binds: definitions (dotted, with what classes hold), assignments and imports."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{inner}" for inner in _bound(node.body, package, trees))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*" and isinstance(node, ast.ImportFrom):
                    yield from _star_names(_source_of(node, package), trees)
                else:
                    yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.For)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.While)):
            blocks = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
            blocks += [handler.body for handler in getattr(node, "handlers", [])]
            for block in blocks:
                yield from _bound(block, package, trees)


def _source_of(node: ast.ImportFrom, package: str) -> str:
    return f"{package}.{node.module}" if node.level == 1 and node.module else node.module or ""


def _star_names(source: str, trees: dict[str, ast.Module]) -> list[str]:
    """What ``from source import *`` brings, from a parsed module or a C module."""
    tree = trees.get(source)
    if tree is None:
        module = _c_module(source) if source in C_MODULES else None
        return [name for name in vars(module) if not name.startswith("_")] if module else []
    package = source.rpartition(".")[0]
    return _all_names(tree) or [name for name in _bound(tree.body, package, trees) if not name.startswith("_")]


def _source_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED_FOLDERS and "-" not in name)
        for name in sorted(files):
            if name.endswith(".py") and name[:-3] not in SKIPPED_MODULES and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


def _walk(body: list[ast.stmt], prefix: str, module: str, *, inside_class: bool) -> Iterator[Entry]:
    for node in definitions(body):
        name = f"{prefix}.{node.name}"
        doc = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            if doc:
                signature, parameters = class_signature(node)
                yield Entry(name, module, module, "class", signature, parameters, doc)
            yield from _walk(node.body, name, module, inside_class=True)
        elif doc:
            decorators = {_last_name(decorator) for decorator in node.decorator_list}
            if decorators & {"property", "cached_property", "setter", "deleter", "getter"}:
                yield Entry(name, module, module, "property", None, (), doc)
                continue
            skip_first = inside_class and "staticmethod" not in decorators
            signature, parameters = signature_of(node.args, skip_first=skip_first)
            yield Entry(name, module, module, "method" if inside_class else "function", signature, parameters, doc)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _exports(trees: dict[str, ast.Module], packages: set[str]) -> dict[str, str]:
    """What a package's ``__init__`` imports from its own modules: ``asyncio.tasks.gather`` → ``asyncio.gather``."""
    exports: dict[str, str] = {}
    for package in sorted(packages):
        for node in trees[package].body if package in trees else ():
            if not isinstance(node, ast.ImportFrom):
                continue
            source = _source_of(node, package)
            if source not in trees or not source.startswith(package + "."):
                continue
            for alias in node.names:
                names = _all_names(trees[source]) if alias.name == "*" else [alias.name]
                for name in names:
                    shown = alias.asname if alias.asname and alias.name != "*" else name
                    exports.setdefault(f"{source}.{name}", f"{package}.{shown}")
    return exports


def _all_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            try:
                return [str(name) for name in ast.literal_eval(node.value)]
            except ValueError:
                return []
    return []


def _under_public_name(entry: Entry, exports: dict[str, str]) -> Entry:
    if entry.kind == "module":
        return entry
    inside = entry.name[len(entry.owner) + 1 :]
    head, _, rest = inside.partition(".")
    public = exports.get(f"{entry.owner}.{head}")
    if public is None:
        return entry
    return replace(entry, name=f"{public}.{rest}" if rest else public, owner=public.rpartition(".")[0])


def _c_module(name: str) -> ModuleType | None:
    """A module written in C, or None where this platform lacks it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _c_names(module: ModuleType, public: str, shown: set[str] | None) -> set[str]:
    """All names that the public module shows of a C module, and those of the classes among them."""
    prefix = "" if public == "builtins" else public + "."
    names: set[str] = set()
    for name, thing in vars(module).items():
        if shown is None or prefix + name in shown:
            names.add(prefix + name)
            if inspect.isclass(thing):
                names |= {f"{prefix}{name}.{inner}" for inner in dir(thing)}
    return names


def _read_c_module(module: ModuleType, public: str, shown: set[str] | None) -> Iterator[Entry]:
    """Entries of what the public module shows of a C module."""
    internal = module.__name__
    if isinstance(module.__doc__, str) and internal == public:
        yield Entry(public, public, public, "module", None, (), inspect.cleandoc(module.__doc__))
    for name, thing in sorted(vars(module).items()):
        full = name if public == "builtins" else f"{public}.{name}"
        if name.startswith("_") or isinstance(thing, ModuleType) or not callable(thing):
            continue
        if shown is not None and full not in shown:
            continue
        if getattr(thing, "__module__", None) not in {internal, public, None} and full != "open":
            continue  # imported from elsewhere
        if public == "sys" and name.endswith("hook"):
            continue  # notebooks and test runners put their own there; the corpus must not depend on who asks
        if getattr(thing, "__name__", name) != name:
            continue  # an alias, such as IOError for OSError
        yield from _c_entry(thing, full, public, "class" if inspect.isclass(thing) else "function")
        if inspect.isclass(thing):
            for inner, member in sorted(vars(thing).items()):
                if not inner.startswith("_"):
                    kind = "method" if callable(getattr(thing, inner, None)) else "property"
                    yield from _c_entry(member, f"{full}.{inner}", public, kind)


def _c_entry(thing: Any, name: str, module: str, kind: str) -> Iterator[Entry]:
    doc = getattr(thing, "__doc__", None)
    if not isinstance(doc, str) or not doc.strip():
        return
    signature, parameters = None, ()
    if kind != "property":
        try:
            declared = inspect.signature(thing)
        except Exception:  # inspect evaluates the text that C code carries, and some of it can't be (curses)
            pass
        else:
            kept = [
                p for p in declared.parameters.values() if p.name not in {"self", "cls", "type"} or kind == "function"
            ]
            signature = ", ".join(c_parameter(p) for p in kept)
            stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
            parameters = tuple(stars.get(p.kind, "") + p.name for p in kept)
    yield Entry(name, module, module, kind, signature, parameters, inspect.cleandoc(doc))
