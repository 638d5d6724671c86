"""A bundle of the page's ES modules as a single script, for a file that can load nothing.

Each module becomes a function that returns what it exports; imports become names taken from those results. This is all
that our own modules need: static imports at the top, exports of declarations, no cycles, no ``export let``.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "(\.[^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|const|class) (\w+))", re.MULTILINE)


def bundle(folder: Path, start: str) -> str:
    """The script that a page with ``<script type="module" src=start>`` would run.

    Args:
        folder: of all modules.
        start: the first one, as a path in `folder`.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for match in IMPORT.finditer((folder / name).read_text(encoding="utf-8")):
            visit(posixpath.normpath(posixpath.join(posixpath.dirname(name), match[3])))
        order.append(name)

    visit(start)
    modules = [_module(folder, name, last=name == start) for name in order]
    return "const modules = {};\n" + "".join(modules)


def _module(folder: Path, name: str, *, last: bool) -> str:
    source = (folder / name).read_text(encoding="utf-8")

    def imported(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[3]))
        names = match[2] or "{" + match[1].replace(" as ", ": ") + "}"
        return f'const {names} = modules["{path}"];\n'

    exports = EXPORT.findall(source)
    body = EXPORT.sub("", IMPORT.sub(imported, source))
    if last:  # it may wait at its top level
        return f"{{\n{body}}}\n"
    return f'modules["{name}"] = (() => {{\n{body}return {{ {", ".join(exports)} }};\n}})();\n'
