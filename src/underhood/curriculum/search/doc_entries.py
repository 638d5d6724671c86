"""Search entries of the documentation: a section of each page, and every term of the glossary.

The pages are ``docs/*.md`` of the repository; an installed package has a copy of its own (pyproject.toml includes it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import underhood
from underhood.curriculum.search.entries import SearchEntry
from underhood.retrieve.blocks import TextBlock, text_blocks
from underhood.retrieve.sentences import sentence_spans

GLOSSARY = "glossary"
LEFT_OUT = {"decisions"}
"""Pages that answer no newcomer: the record of past decisions."""


def docs_folder() -> Path | None:
    """The folder of the documentation: in a checkout ``docs``, in an installed package a folder of its own."""
    package = Path(underhood.__file__).parent
    for folder in (package / "docs", package.parents[1] / "docs"):
        if (folder / f"{GLOSSARY}.md").is_file():
            return folder
    return None


def doc_pages(folder: Path) -> dict[str, Path]:
    """The pages by name (``docs/sampling.md``), README first."""
    readme = next((file for file in (folder / "README.md", folder.parent / "README.md") if file.is_file()), None)
    pages = {} if readme is None else {"README.md": readme}
    for file in sorted(folder.glob("*.md")):
        if file.stem not in LEFT_OUT and file != readme:
            pages[f"docs/{file.name}"] = file
    return pages


def doc_entries() -> Iterator[SearchEntry]:
    """Sections and glossary terms in the order of the pages; nothing where the documentation is missing."""
    folder = docs_folder()
    for name, file in ({} if folder is None else doc_pages(folder)).items():
        text = file.read_text(encoding="utf-8")
        yield from glossary_entries(text) if file.stem == GLOSSARY else section_entries(name, file, text)


def section_entries(name: str, file: Path, text: str) -> Iterator[SearchEntry]:
    """One entry per heading of a page, with the text up to the next heading."""
    sections: dict[tuple[str, ...], list[TextBlock]] = {}
    for block in text_blocks(text):
        sections.setdefault(block.headings, []).append(block)
    page_title = next((headings[0] for headings in sections if headings), Path(name).stem)
    for headings, blocks in sections.items():
        title = plain(headings[-1]) if headings else page_title
        prose = "\n".join(plain(block.text) for block in blocks if not is_code(block))
        code = "\n".join(block.text for block in blocks if is_code(block))
        anchor = slug(headings[-1]) if headings else ""
        yield SearchEntry(
            kind="docs",
            target=f"{name}#{anchor}" if anchor else name,
            title=title if title == page_title else f"{page_title}: {title}",
            summary=first_sentence(prose.partition("\n|")[0]),
            questions=Path(name).stem.replace("README", ""),
            text=prose,
            names=code,
            page=f"docs-{Path(name).stem.lower()}.html#{anchor}",
            see=f"{shown_path(file)}:{heading_line(text, headings)}",
        )


def glossary_entries(text: str) -> Iterator[SearchEntry]:
    """One entry per row of the glossary's tables ``| term | meaning | source | code |``."""
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [plain(cell.strip()) for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|") or len(cells) != 4 or cells[0] in ("term", "---"):
            continue
        term, meaning, source, code = cells
        known_from = "" if source in ("–", "") else f" ({source})"
        yield SearchEntry(
            kind="glossary",
            target=f"glossary: {term}",
            title=term,
            other_names=tuple(re.findall(r"\(([^)]+)\)", term)),
            summary=f"{meaning.rstrip('.')}{known_from}; {code.strip(' |')}",
            page=f"docs-{GLOSSARY}.html#{slug(term)}",
            see=f"docs/{GLOSSARY}.md:{number}",
        )


def is_code(block: TextBlock) -> bool:
    """Whether line breaks mean something in it, and it is not a table."""
    return block.verbatim and not block.text.startswith("|")


def plain(text: str) -> str:
    """Markdown without its marks: links are their words."""
    return re.sub(r"[*`]+", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)).strip()


def first_sentence(prose: str) -> str:
    """The first sentence of a section, in one line, that does not speak of the page itself."""
    flat = " ".join(prose.split())
    sentences = [flat[start:end] for start, end in sentence_spans(flat)]
    return next((sentence for sentence in sentences if "this page" not in sentence), "")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", plain(heading).lower()).strip().replace(" ", "-")


def heading_line(text: str, headings: tuple[str, ...]) -> int:
    """The line of the section's heading, 1 for what comes before any."""
    for number, line in enumerate(text.splitlines(), start=1):
        if headings and re.fullmatch(rf"#+\s+{re.escape(headings[-1])}\s*#*", line.strip()):
            return number
    return 1


def shown_path(file: Path) -> str:
    """A file as one would type it here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
