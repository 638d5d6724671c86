"""An interactive figure in a browser: sets its controls, reads its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from underhood.curriculum import results
from underhood.curriculum.pages.site import page as page_text

SET = """(input, value) => {
  input.value = value;
  input.dispatchEvent(new Event(input.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
}"""


class InteractiveFigure:
    """The interactive figure of one milestone's page."""

    def __init__(self, page: Page):
        self.page = page

    def set(self, **controls: float | str) -> InteractiveFigure:
        """Sets sliders (their position), texts and choices by their names."""
        for name, value in controls.items():
            self.page.locator(f".interactive [name={name}]").evaluate(SET, value)
        return self

    def press(self, label: str, times: int = 1) -> InteractiveFigure:
        for _ in range(times):
            self.page.get_by_role("button", name=label, exact=True).click()
        return self

    def __getitem__(self, name: str) -> float:
        value = self.page.locator(f"[data-reading={name}]").get_attribute("data-value")
        assert value is not None, f"no number yet: {name}"
        return float(value.replace("Infinity", "inf"))

    def raw(self, name: str) -> str:
        return self.page.locator(f"[data-reading={name}]").get_attribute("data-value") or ""


Opener = Callable[[str], InteractiveFigure]
"""Opens the figure of a milestone, by its stem."""


def write_pages(folder: Path, stems: list[str]) -> None:
    """The pages of these milestones, with the published results."""
    for stem in stems:
        (folder / f"{stem}.html").write_text(page_text(stem, results.places(None)), encoding="utf-8")
