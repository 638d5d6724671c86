"""The theme: style sheets, shared scripts, templates and the content security policy of self-contained pages."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

ASSETS = Path(__file__).parent / "assets"


def asset(name: str) -> str:
    """The text of a shared file: ``tokens.css`` (colours and sizes), ``base.css``, ``theme.js``, ``slider.js``."""
    return (ASSETS / name).read_text(encoding="utf-8")


def page_renderer(folder: Path, **filters: Callable[..., Any]) -> Callable[..., str]:
    """Makes the function ``render(template, styles, scripts, **context)`` for pages that need no other file.

    Templates get ``css``, ``early_script``, ``late_script`` and ``policy``: the shared files followed by the given
    `styles` and `scripts` of `folder`. HTML escaping is on, and undefined names are errors.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"data": script_data, **filters}

    def own(names: Sequence[str]) -> str:
        return "".join((folder / name).read_text(encoding="utf-8") for name in names)

    def render(template: str, styles: Sequence[str], scripts: Sequence[str], **context: Any) -> str:
        early, late = asset("theme.js"), asset("slider.js") + own(scripts)
        css = asset("tokens.css") + asset("base.css") + own(styles)
        return environment.get_template(template).render(
            **context,
            css=Markup(css),
            early_script=Markup(early),
            late_script=Markup(late),
            policy=content_security_policy(early, late),
        )

    return render


def content_security_policy(*scripts: str) -> str:
    """A policy that lets these scripts run, by their digests, and no request leave the page.

    Even a mistake of ours could then not run or fetch what a corpus contains.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def script_data(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
