"""report.html in a real browser: quiet, self-contained, readable in both themes, at every width, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_run import make_run
from playwright.sync_api import Browser, Page, sync_playwright

from needs import chromium
from underhood.recipes.report.page import write_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"

CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour, under) => {
    context.clearRect(0, 0, 1, 1);
    if (under) { context.fillStyle = under; context.fillRect(0, 0, 1, 1); }
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const weak = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest("script, style, .visually-hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const svg = element instanceof SVGElement;
    const under = ground(element);
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    const back = rgba(under);
    const front = rgba(svg ? style.fill : style.color, under).map((v, i) => v * opacity + back[i] * (1 - opacity));
    const [a, b] = [light(front), light(back)].sort((p, q) => q - p);
    const ratio = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (ratio < 4.5) weak.push(`${ratio.toFixed(2)} ${element.tagName}.${element.getAttribute("class")}: `
      + walker.currentNode.data.trim().slice(0, 30));
  }
  return { seen, weak };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "whole", evals=True))


class Visit:
    """An open page and everything that a quiet page must not do."""

    def __init__(self, browser: Browser, file: Path, **options: Any):
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.finished: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfinished", lambda request: self.finished.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def is_quiet(self) -> bool:
        return self.complaints == [] and [r for r in self.requests[1:] if not r.startswith("data:")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390, 360])
def test_report_page_is_quiet_readable_and_fits(browser: Browser, whole: Path, scheme: Any, width: int) -> None:
    with Visit(browser, whole, viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
        page = visit.page
        page.eval_on_selector_all("details", "all => all.forEach((one) => (one.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        contrast = page.evaluate(CONTRAST)
        assert contrast["seen"] > 300
        assert contrast["weak"] == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 20, 22)"
        assert dark == (scheme == "dark")
        assert visit.is_quiet(), (visit.complaints, visit.requests)


def test_report_page_of_an_interrupted_run_is_quiet(browser: Browser, tmp_path: Path) -> None:
    file = write_report(make_run(tmp_path / "half", stop=("sft", 90)))
    with Visit(browser, file, viewport={"width": 360, "height": 800}) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visit.page.locator(".incomplete").is_visible()
        assert visit.is_quiet(), (visit.complaints, visit.requests)


def test_report_page_runs_nothing_that_the_corpus_spells(browser: Browser, tmp_path: Path) -> None:
    file = write_report(make_run(tmp_path / "run", text="x", hostile=HOSTILE))
    with Visit(browser, file, viewport={"width": 390, "height": 800}) as visit:
        assert visit.page.title() != "hacked"
        assert visit.page.locator("img").count() == 0
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert visit.is_quiet(), (visit.complaints, visit.requests)


def test_report_page_policy_stops_a_script_that_slipped_in(browser: Browser, whole: Path, tmp_path: Path) -> None:
    """The ablation of escaping: even raw markup in the page can neither run nor fetch."""
    broken = tmp_path / "report.html"
    broken.write_text(whole.read_text().replace("<h1>", f"<h1>{HOSTILE}", 1))
    with Visit(browser, broken) as visit:
        assert visit.page.title() != "hacked"
        assert visit.finished == [broken.as_uri()]  # the picture was asked for, and refused
    open_door = tmp_path / "open.html"
    open_door.write_text(broken.read_text().replace("http-equiv", "data-was"))
    with Visit(browser, open_door) as visit:
        assert visit.page.title() == "hacked"


def test_report_page_has_ordered_headings_named_controls_and_unique_ids(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole) as visit:
        page = visit.page
        levels = page.eval_on_selector_all("h1, h2, h3, h4, h5", "all => all.map((h) => +h.tagName[1])")
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = page.eval_on_selector_all("[id]", "all => all.map((one) => one.id)")
        assert len(ids) == len(set(ids))
        missing = page.evaluate("""() => [...document.querySelectorAll("[href^='#'], [aria-labelledby], [data-read]")]
          .map((e) => e.getAttribute("href")?.slice(1) ?? e.getAttribute("aria-labelledby") ?? e.dataset.read)
          .filter((id) => !document.getElementById(id))""")
        assert missing == []
        nameless = page.evaluate("""() => [...document.querySelectorAll(
            "a, button, input, [role=img], [role=slider], [role=listbox], [role=region]," +
            "svg:not([aria-hidden], [aria-hidden] *)")]
          .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.closest("label")))
          .map((e) => e.outerHTML.slice(0, 80))""")
        assert nameless == []
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.eval_on_selector_all("th", "all => all.every((th) => th.scope)")


def test_report_page_theme_switch_is_remembered(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole, color_scheme="light") as visit:
        ground = "getComputedStyle(document.body).backgroundColor"
        switch = visit.page.get_by_role("button", name="Theme")
        switch.click()
        switch.click()
        assert visit.page.evaluate(ground) == "rgb(20, 20, 22)"
        visit.page.reload()
        assert visit.page.evaluate(ground) == "rgb(20, 20, 22)"
        visit.page.get_by_role("button", name="Theme").click()
        assert visit.page.evaluate(ground) == "rgb(252, 252, 251)"


def test_report_page_works_where_storage_is_forbidden(browser: Browser, whole: Path, tmp_path: Path) -> None:
    """In a sandboxed frame without an origin, touching localStorage throws."""
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe sandbox="allow-scripts" width="900" height="700" src="{whole.as_uri()}"></iframe>')
    with Visit(browser, frame) as visit:
        inside = visit.page.frame_locator("iframe")
        inside.get_by_role("button", name="Theme").click()
        assert inside.locator(".switch .now").inner_text() == "light"
        assert visit.complaints == []


def test_report_page_curve_reads_off_by_pointer_and_keyboard(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole, viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as visit:
        curve = visit.page.locator(".curve").first
        area, read = curve.locator(".area"), curve.locator(".read .value")
        assert read.inner_text().startswith("step 2,400 · 4.92\u00a0M tokens")
        area.focus()
        visit.page.keyboard.press("Home")
        assert read.inner_text().startswith("step 1 ·")
        visit.page.keyboard.press("ArrowRight")
        assert read.inner_text().startswith("step 11 ·")
        assert area.get_attribute("aria-valuetext") == read.text_content()
        assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        assert box is not None
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
        assert read.inner_text().startswith("step 1,2")


def test_report_page_token_strip_reads_off_by_pointer_and_keyboard(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole, viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as visit:
        strip, read = visit.page.locator(".strip"), visit.page.locator("#token-read")
        tokens = strip.locator(".token")
        idle = read.inner_text()
        assert idle.endswith("298 bytes")
        tokens.nth(2).hover()
        assert "id " in read.inner_text()
        assert "70 61 74 68" in read.inner_text()  # path
        visit.page.mouse.move(0, 0)
        assert read.inner_text() == idle
        strip.focus()
        visit.page.keyboard.press("ArrowRight")
        assert "2e" in read.inner_text()  # the full stop after os
        assert strip.get_attribute("aria-activedescendant") == "t2"
        first = tokens.nth(1).bounding_box()
        visit.page.keyboard.press("ArrowDown")
        below = visit.page.locator(".token.here").bounding_box()
        assert first is not None
        assert below is not None
        assert below["y"] > first["y"] + 10
        visit.page.get_by_label("by age").check()
        assert "by-id" in (strip.get_attribute("class") or "")
        assert visit.is_quiet(), (visit.complaints, visit.requests)


def test_report_page_shows_everything_without_javascript(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole, java_script_enabled=False) as visit:
        assert visit.page.locator(".curve .line").count() == 5
        assert visit.page.locator(".curve .end .value").first.is_visible()
        assert visit.page.locator(".switch").is_hidden()
        assert visit.page.locator(".token").first.is_visible()


def test_report_page_prints_in_light_without_its_bar(browser: Browser, whole: Path) -> None:
    with Visit(browser, whole, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.locator(".bar").is_hidden()
        assert visit.page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 29, 31)"
