"""The page that looks into a model, served in a thread, and how its panels are read."""

from __future__ import annotations

import re
import threading

from page_visit import PATIENCE
from playwright.sync_api import Locator, Page

from underhood.web.inside.routes import create_inside_app
from underhood.web.inside.subjects import InsideModels
from underhood.web.server import Server, address, listen
from underhood.web.settings import ServeSettings

NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"


def numbers(text: str) -> list[float]:
    """All numbers in a text as the page writes them."""
    return [float(each.replace("−", "-").replace(",", "")) for each in re.findall(NUMBER, text)]


class Inside:
    """A server of the page in a thread."""

    def __init__(self, models: InsideModels, prompt: str):
        self.models = models
        settings = ServeSettings(port=0, drain_seconds=5.0)
        listening = listen(settings)
        started = threading.Event()
        self.server = Server(create_inside_app(models, prompt, settings), settings, started.set)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        assert started.wait(60)
        self.url = address(settings, listening)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def panel(page: Page, name: str) -> Locator:
    """A panel, scrolled to and drawn."""
    section = page.locator(f"#panel-{name}")
    section.scroll_into_view_if_needed()
    page.wait_for_selector(f'#panel-{name}[aria-busy="false"]', timeout=PATIENCE)
    return section


def wait_for_text(page: Page, selector: str, text: str) -> None:
    """Waits until an element's text holds another text."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)", arg=[selector, text]
    )


def reading(section: Locator, number: int = 0) -> str:
    return section.locator(".heat-read").nth(number).inner_text()
