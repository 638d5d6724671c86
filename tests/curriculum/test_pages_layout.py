"""Every page of the path at a phone's, a tablet's and a desk's width: nothing cut off, nothing on top of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_layout import layout_faults
from playwright.sync_api import Browser, Page, sync_playwright

from needs import chromium
from underhood.curriculum import index, results
from underhood.curriculum.pages.reference import reference_names
from underhood.curriculum.pages.site import write_site

WIDTHS = (360, 768, 1280)
PAGES = ("index", *index.milestones(), *reference_names())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, results.places(None))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce")
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page_of_the_path_has_no_layout_fault(page: Page, site: Path, name: str) -> None:
    page.goto(f"file://{site}/{name}.html")
    page.evaluate("document.querySelectorAll('details').forEach((element) => (element.open = true))")
    faults = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        faults[width] = layout_faults(page)
    assert faults == {width: [] for width in WIDTHS}


def test_layout_faults_sees_each_kind_of_fault(page: Page) -> None:
    """The ablation: of each kind one is made, beside one that is right."""
    page.set_viewport_size({"width": 360, "height": 900})
    page.set_content("""<!doctype html><style>
      body { margin: 0 } .scroll { overflow-x: auto } .cut { overflow: hidden; width: 90px; white-space: nowrap }
      .low { overflow-x: auto; height: 10px } .narrow { width: 60px } .over { position: absolute; left: 0; top: 300px }
      .verdict { display: inline-flex } .mark { width: 12px; height: 12px; flex: none }</style><main>
      <div class="scroll"><div style="width: 900px">a wide table that scrolls</div></div>
      <div style="width: 500px">too wide</div>
      <p class="cut">these words are cut off at their side</p>
      <div class="equation low"><p style="margin: 0">tall</p></div>
      <p class="narrow"><math><mi>wwwwwwwwwwww</mi></math></p>
      <span class="verdict"><i class="mark"></i>holds</span>
      <span class="verdict"><i class="mark" style="margin-right: -12px"></i>does not hold</span>
      <span class="over">first</span><span class="over">second</span></main>""")
    kinds = [kind for kind, _ in layout_faults(page)]
    for kind in (
        "wider than the window",
        "cut off at the side",
        "cut off at the bottom",
        "wider than its paragraph",
        "mark on its word",
        "words on words",
    ):
        assert kinds.count(kind) == 1, (kind, layout_faults(page))
