"""Reference pages that a search leads to: documentation and glossary, commands with their options, modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from underhood.curriculum.search.code_entries import code_entries, definitions, package_folder, summary_of
from underhood.curriculum.search.command_entries import command_entries
from underhood.curriculum.search.doc_entries import GLOSSARY, doc_pages, docs_folder, plain, slug
from underhood.curriculum.search.entries import SearchEntry

COMMANDS, CODE = "commands", "code"


def reference_names() -> list[str]:
    """The names of all reference pages: ``docs-sampling``, …, ``commands``, ``code``."""
    return [*_docs(), COMMANDS, CODE]


def _docs() -> dict[str, Path]:
    folder = docs_folder()
    pages = {} if folder is None else doc_pages(folder)
    return {f"docs-{Path(name).stem.lower()}": file for name, file in pages.items()}


def reference(name: str) -> dict[str, Any]:
    """What the template shows of a reference page: its title and its sections.

    Raises:
        LookupError: there is no such page.
    """
    if name == COMMANDS:
        return {"title": "Commands", "body": None, "groups": list(command_groups()), "modules": []}
    if name == CODE:
        return {"title": "Code", "body": None, "groups": [], "modules": code_modules()}
    file = _docs().get(name)
    if file is None:
        raise LookupError(f"no reference page {name}")
    text = file.read_text(encoding="utf-8")
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return {
        "title": plain(heading[1]) if heading else file.stem,
        "body": document(text, glossary=file.stem == GLOSSARY),
        "groups": [],
        "modules": [],
    }


def document(text: str, *, glossary: bool = False) -> Markup:
    """A page of the documentation as HTML: headings have GitHub's anchors, links to other pages lead to theirs.

    Pictures are left out, because a page of the path is one file. In the glossary every term has an anchor.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(tokens[at + 1].content))
        if glossary and token.type == "tr_open" and tokens[at + 1].type == "td_open":
            token.attrSet("id", slug(tokens[at + 2].content))
        if token.type == "inline":
            token.children = [child for child in token.children or [] if child.type != "image"]
            for child in token.children:
                if child.type == "link_open":
                    child.attrSet("href", own_link(str(child.attrGet("href"))))
    rendered = parser.renderer.render(tokens, parser.options, {})
    rendered = rendered.replace("<pre>", '<pre tabindex="0">').replace("<th></th>", "<td></td>")
    framed = rendered.replace("<table>", '<div class="scroll" tabindex="0"><table class="grid">')
    return Markup(framed.replace("</table>", "</table></div>"))


def own_link(link: str) -> str:
    """A link between pages of the documentation as a link between reference pages; others stay."""
    match = re.fullmatch(r"(?:\.\./|\./|docs/)*(?:docs/)?([\w-]+)\.md(#[\w-]*)?", link)
    if match and f"docs-{match[1].lower()}" in _docs():
        return f"docs-{match[1].lower()}.html{match[2] or ''}"
    return link if re.match(r"https?://|#", link) else "index.html"


def command_groups() -> list[tuple[SearchEntry, list[SearchEntry]]]:
    """Each command with the options that are described at it; an option that several share is at the first."""
    entries = list(command_entries())
    commands = [entry for entry in entries if entry.kind == "command"]
    return [
        (command, [entry for entry in entries if entry.kind == "option" and entry.page == command.page])
        for command in commands
    ]


def code_modules() -> list[tuple[SearchEntry, list[tuple[str, str]]]]:
    """Each module with the names and first sentences of what it defines."""
    modules = []
    for entry in code_entries():
        source = (package_folder() / entry.target).read_text(encoding="utf-8")
        modules.append((entry, [(member, summary_of(text)) for member, text in definitions(source)]))
    return modules
