"""Fixtures for pages in a browser: one browser, and interactive figures of pages that must not leave their folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from interactive_page import InteractiveFigure, Opener, write_pages
from playwright.sync_api import Browser, sync_playwright

from needs import chromium
from underhood.curriculum.pages.interactive import FIGURES


@pytest.fixture(scope="module")
def figure_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that have an interactive figure."""
    folder = tmp_path_factory.mktemp("figures")
    write_pages(folder, list(FIGURES))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def figure(browser: Browser, figure_site: Path) -> Iterator[Opener]:
    """Opens a milestone's figure; fails the test for anything on the console and any request that leaves the folder."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1100, "height": 900})

    def opened(stem: str) -> InteractiveFigure:
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file://") else wrong.append(request.url))
        page.goto(f"file://{figure_site}/{stem}.html")
        return InteractiveFigure(page)

    yield opened
    context.close()
    assert wrong == []
