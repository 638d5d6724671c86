"""Every page of the path under axe-core: names of controls, contrast, order of headings, in both themes and widths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from underhood.curriculum import index, results
from underhood.curriculum.pages.reference import reference_names
from underhood.curriculum.pages.site import write_site

PAGES = ("index", *index.milestones(), *reference_names())
SERIOUS = ("serious", "critical")
OTHER_RULES = {"heading-order", "region", "landmark-one-main", "page-has-heading-one"}
"""Rules that axe calls moderate and that these pages keep all the same."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, results.places(None))
    return folder


@pytest.fixture(scope="module", params=[(1280, "light"), (360, "dark")], ids=["desk-light", "phone-dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    width, scheme = request.param
    options: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce", "bypass_csp": True}
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    yield context.new_page()
    context.close()


def faults(page: Page) -> dict[str, str]:
    """What axe finds on the page: the rule and the first element that breaks it."""
    page.evaluate("document.querySelectorAll('details').forEach((element) => (element.open = true))")
    return {
        violation["id"]: violation["nodes"][0]["html"][:160]
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in SERIOUS or violation["id"] in OTHER_RULES
    }


@pytest.mark.parametrize("name", PAGES)
def test_page_of_the_path_is_accessible(page: Page, site: Path, name: str) -> None:
    page.goto(f"file://{site}/{name}.html")
    assert faults(page) == {}


def test_axe_sees_what_it_is_meant_to_see_on_a_page_of_the_path(page: Page, site: Path) -> None:
    """The ablation: a control without its label, pale letters, and a heading that skips two levels."""
    page.goto(f"file://{site}/p2014_adam.html")
    page.evaluate("""() => {
      document.querySelector(".interactive label span").remove();
      document.querySelector("h1").style.color = "#8888";
      document.querySelector("main").append(Object.assign(document.createElement("h6"), { textContent: "Deep" }));
    }""")
    assert {"label", "color-contrast", "heading-order"} <= set(faults(page))
