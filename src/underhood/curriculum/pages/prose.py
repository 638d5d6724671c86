"""A milestone's words as HTML: paragraphs, emphasis, code, links, and TeX as MathML, which browsers draw by themselves.

Marks: an empty line ends a paragraph; lines that begin with ``- `` are a list; ``$…$`` and ``$$…$$`` are TeX,
```` `…` ```` code, ``*…*`` emphasis, ``[words](https://…)`` a link. Everything else is text and is escaped.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert
from markupsafe import Markup, escape

SPANS = re.compile(
    r"\$(?P<tex>[^$]+)\$|`(?P<code>[^`]+)`|\*(?P<emphasis>[^*\s][^*]*)\*|\[(?P<words>[^\]]+)\]\((?P<link>https?://[^)\s]+)\)"
)


def mathml(tex: str, *, block: bool = False) -> Markup:
    r"""TeX as MathML.

    ValueError if it holds a command that the converter does not know: it would be shown as ``\command``.
    """
    try:
        markup = convert(" ".join(tex.split()), display="block" if block else "inline")
    except Exception as error:  # the converter has a class per mistake and no common one
        raise ValueError(f"not TeX that can be shown: {tex!r} ({type(error).__name__})") from error
    unknown = re.search(r"\\[A-Za-z]+", markup)
    if unknown:
        raise ValueError(f"TeX that can't be shown: {unknown.group()} in {tex!r}")
    return Markup(markup)


def inline(text: str) -> Markup:
    """One line of prose as HTML, without a paragraph around it."""
    parts: list[Markup] = []
    end = 0
    for span in SPANS.finditer(text):
        parts += [escape(text[end : span.start()]), _span(span)]
        end = span.end()
    return Markup("").join([*parts, escape(text[end:])])


def html(text: str) -> Markup:
    """Prose as HTML blocks."""
    return Markup("\n").join(_block(block) for block in blocks(text))


def blocks(text: str) -> list[str]:
    """Paragraphs, lists and displayed equations, each as one string."""
    listed = []
    for piece in re.split(r"(\$\$.+?\$\$)", text.strip(), flags=re.DOTALL):
        listed += [piece] if piece.startswith("$$") else [block.strip() for block in re.split(r"\n\s*\n", piece)]
    return [block for block in listed if block]


def plain(text: str) -> str:
    """Prose without its marks, in one line, for titles and descriptions."""
    return " ".join(SPANS.sub(lambda span: next(filter(None, span.groups())), text.replace("$$", "$")).split())


def _block(block: str) -> Markup:
    if block.startswith("$$"):
        return Markup('<div class="equation" tabindex="0">{}</div>').format(mathml(block.strip("$"), block=True))
    if block.startswith("- "):
        items = [" ".join(item.split()) for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]]
        return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(inline(i)) for i in items))
    return Markup("<p>{}</p>").format(inline(" ".join(block.split())))


def _span(span: re.Match[str]) -> Markup:
    if span["tex"] is not None:
        return mathml(span["tex"])
    if span["code"] is not None:
        return Markup("<code>{}</code>").format(span["code"])
    if span["emphasis"] is not None:
        return Markup("<em>{}</em>").format(inline(span["emphasis"]))
    return Markup('<a href="{}">{}</a>').format(span["link"], inline(span["words"]))
