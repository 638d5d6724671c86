"""Files of the web pages: scripts, styles, documents, with the policy that allows nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from underhood.ui.theme import asset
from underhood.web.errors import ApiError

STATIC = Path(__file__).parent / "static"
SHARED = ("tokens.css", "base.css", "theme.js")
"""Files of the theme that every page uses."""

TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def static_router() -> APIRouter:
    """``/static/``: the pages' own files and no others."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{path:path}")
    def static(path: str) -> Response:
        if path in SHARED:
            return Response(asset(path), media_type=TYPES[Path(path).suffix], headers=HEADERS)
        file = (STATIC / path).resolve()
        if not file.is_relative_to(STATIC.resolve()) or not file.is_file() or file.suffix not in TYPES:
            raise ApiError(404, f"There is no file {path}.")
        return page_file(file)

    return router


def page_file(file: Path) -> Response:
    """A file of the pages with their headers."""
    return Response(file.read_bytes(), media_type=f"{TYPES[file.suffix]}; charset=utf-8", headers=HEADERS)
