"""The web page in a real browser over a real server, and everything that it must never do."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_run
import tiny_run
from live_server import SPEC, Live, serving
from playwright.sync_api import Browser, Page, expect, sync_playwright

from needs import chromium
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120_000
"""Milliseconds to wait for anything: on a busy machine a page may take long, and no test judges how long."""

GREEDY = "/?temperature=0&max_tokens=24"
"""The chat's address with settings under which the API is an oracle."""

expect.set_options(timeout=PATIENCE)


@contextlib.contextmanager
def headless() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened
        opened.close()


@contextlib.contextmanager
def page_server(folder: Path, *, hostile: str = "", **settings: Any) -> Iterator[Live]:
    """A server over a run ``small`` with tiny random models and the log of a whole build, beside two runs without
    models: ``whole`` and ``half``, which was stopped.
    """
    runs = folder / "runs"
    small = tiny_run.make_run(runs / "small", context=512)
    made_run.make_run(runs / "whole", evals=True, hostile=hostile)
    made_run.make_run(runs / "half", stop=("sft", 90))
    for name in ("events.jsonl", "summary.json"):
        shutil.copy(runs / "whole" / name, small / name)
    given: dict[str, Any] = {"port": 0, "feedback": folder / "feedback.db", "drain_seconds": 5.0, "runs": runs}
    with serving(ModelRegistry.open([small], spec=SPEC), ServeSettings(**(given | settings))) as live:
        yield live


class Visit:
    """An open page. `complaints` and `foreign` stay empty on a page that behaves."""

    def __init__(self, browser: Browser, url: str, path: str = "/", **options: Any):
        self.url = url
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.go(path)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:")):
            self.foreign.append(request.url)

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    @property
    def quiet(self) -> bool:
        return not self.complaints and not self.foreign

    def ask(self, words: str) -> None:
        """Sends a message and waits until every answer has come."""
        field = self.page.get_by_label("Your message")
        field.fill(words)
        field.press("Enter")
        self.settled()

    def settled(self) -> None:
        """Waits until an answer is there and nothing is being written."""
        self.page.locator('.answer[aria-busy="false"]').first.wait_for()
        self.page.locator('.answer[aria-busy="true"]').first.wait_for(state="detached")

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")


def answers(visit: Visit) -> list[dict[str, Any]]:
    """The answers of the last conversation as the browser keeps them, in the order of turns, lanes and writing."""
    kept = visit.page.evaluate("""async () => (await (await import("/static/store.js")).all())[0]""")
    turns = sorted(kept["turns"].values(), key=lambda turn: turn["order"])
    return [answer for turn in turns for lane in sorted(turn["answers"]) for answer in turn["answers"][lane]]


def said(visit: Visit) -> list[str]:
    return [answer["text"] for answer in answers(visit)]
