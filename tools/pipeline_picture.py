"""The pipeline of a run as an SVG file: the report's drawing, with its own colours for light and dark pages.

python tools/pipeline_picture.py runs/pydocs docs/pipeline.svg
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MARGIN = 24
COLOUR = re.compile(r"light-dark\(([^,()]+), ([^()]+)\)")
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


def pipeline_svg(report: str) -> str:
    """The wide drawing of a report's pipeline as a file of its own, on the page's ground.

    Raises:
        ValueError: the page holds no such drawing.
    """
    drawing = re.search(
        r'<svg class="wide" viewBox="0 0 (\d+) (\d+)"[^>]*?aria-label="([^"]+)">(.*?)</svg>', report, re.S
    )
    style = re.search(r"<style>(.*?)</style>", report, re.S)
    if drawing is None or style is None:
        raise ValueError("expected a report with the drawing of its pipeline")
    width, height, label, body = int(drawing[1]), int(drawing[2]), drawing[3], drawing[4]
    box = f"{-MARGIN} {-MARGIN} {width + 2 * MARGIN} {height + 2 * MARGIN}"
    body = "\n".join(line.strip() for line in body.splitlines() if line.strip())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pipeline" viewBox="{box}" role="img" aria-label="{label}">\n'
        f"<style>\n{picture_style(style[1], body)}\n</style>\n"
        f'<rect class="ground" x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def picture_style(page_style: str, body: str) -> str:
    """The rules of a page's style sheet that its drawing needs; the viewer's scheme chooses the colours."""
    page_style = re.sub(r"/\*.*?\*/", "", page_style, flags=re.S)
    variables = dict(re.findall(r"--([\w-]+): ([^;]+);", page_style))
    classes = {name for names in re.findall(r'class="([^"]+)"', body) for name in names.split()}
    rules = [".ground { fill: var(--ground); }", "text { font-family: var(--sans); }"]
    for selectors, declarations in RULE.findall(page_style):
        wanted = [selector.strip() for selector in selectors.split(",") if _applies(selector.strip(), classes)]
        if wanted:
            rules.append(f"{', '.join(wanted)} {{ {' '.join(declarations.split())} }}")
    used = {name for rule in rules for name in re.findall(r"var\(--([\w-]+)", rule)} & variables.keys() - {"hue"}
    rules.insert(0, "svg { " + " ".join(f"--{name}: {variables[name]};" for name in sorted(used)) + " }")
    light = [COLOUR.sub(r"\1", rule) for rule in rules]
    dark = [COLOUR.sub(r"\2", rule) for rule in rules if COLOUR.search(rule)]
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}"])


def _applies(selector: str, classes: set[str]) -> bool:
    """Whether a rule is one of the drawing's: text, marks and hues of classes that it has."""
    names = set(re.findall(r"\.([\w-]+)", selector)) - {"pipeline"}
    elements = set(re.findall(r"[a-z]+", re.sub(r"\.[\w-]+", "", selector)))
    drawn = selector.startswith((".pipeline", ".glyph")) or re.fullmatch(r"\.[\w-]+", selector) is not None
    return drawn and names <= classes and elements <= {"text"} and bool(names | elements)


def main(report: Path, out: Path) -> int:
    out.write_text(pipeline_svg(report.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) / "report.html", Path(sys.argv[2])))
