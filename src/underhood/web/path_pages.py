"""The path in the app: the same pages as ``underhood path --html``, made when they are asked for."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from underhood.core.errors import UserError
from underhood.curriculum import results
from underhood.curriculum.index import find
from underhood.curriculum.pages.site import page, page_names
from underhood.web.errors import ApiError

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The rest of the policy is in the page itself, which names its scripts by their digests."""


def path_router(own_results: Path | None = None) -> APIRouter:
    """``/path/``, the map, milestones and reference pages; results are read anew each time.

    Another spelling of a milestone, or a topic that it covers, leads to its page.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/path")
    @router.get("/path/")
    def index() -> Response:
        return RedirectResponse("/path/index.html", headers=HEADERS)

    @router.get("/path/{name}.html")
    def one(name: str) -> Response:
        if name not in page_names():
            try:
                return RedirectResponse(f"/path/{find(name).stem}.html", headers=HEADERS)
            except UserError as error:
                raise ApiError(404, f"There is no page {name} on the path: {error}") from None
        text = page(name, results.places(own_results), app=True)
        return Response(text, media_type="text/html", headers=HEADERS)

    return router
