"""The settings that hold: shown, sent as shown, reset; two models drawn alike; speeds that were measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from page_visit import Visit, headless, page_server
from playwright.sync_api import Request, expect

TWO = "/?max_tokens=12&model=small:dpo&model=small:sft"


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with (
        page_server(tmp_path_factory.mktemp("settings")) as live,
        headless() as browser,
        Visit(browser, live.url) as it,
    ):
        yield it


def bodies(visit: Visit, words: str) -> list[dict[str, Any]]:
    """What the page sends to have a message answered."""
    sent: list[dict[str, Any]] = []

    def take(request: Request) -> None:
        if request.url.endswith("/completions"):
            sent.append(json.loads(request.post_data or "{}"))

    visit.page.on("request", take)
    visit.ask(words)
    visit.page.remove_listener("request", take)
    return sent


def test_page_settings_show_what_the_server_does_and_a_change_changes_nothing_else(visit: Visit) -> None:
    visit.go("/?max_tokens=12")
    page = visit.page
    page.get_by_role("button", name="Settings", exact=True).click()
    own = page.evaluate("fetch('/ui/models').then((r) => r.json())")["models"][0]["sampling"]
    for name in ("temperature", "min_p"):
        expect(page.locator(f"#set-{name}")).to_have_value(str(own[name] or 0))  # none of it is 0 there
    expect(page.get_by_label("Temperature by hand")).to_have_value(str(own["temperature"]))
    assert "temperature" not in bodies(visit, "one")[0]  # the server's own
    page.locator("#set-top_p").fill("0.8")
    page.locator("#set-top_p").press("Tab")
    [body] = bodies(visit, "two")
    assert {name: body.get(name) for name in ("temperature", "min_p", "top_p")} == {
        "temperature": own["temperature"], "min_p": own["min_p"], "top_p": 0.8,
    }  # fmt: skip
    page.get_by_role("button", name="Back to the default").and_(page.locator(":visible")).first.click()
    expect(page.locator("#set-top_p")).to_have_value("1")
    assert "top_p" not in page.url
    assert "top_p" not in bodies(visit, "three")[0]
    assert visit.quiet, visit.complaints


def test_page_compare_draws_both_alike_and_says_how(visit: Visit) -> None:
    visit.go(TWO)
    note = visit.page.locator(".composer-note")
    expect(note).to_contain_text("Both at temperature 0")
    greedy = bodies(visit, "What is a list?")
    assert [body["model"] for body in greedy] == ["small:dpo", "small:sft"]
    assert [body["temperature"] for body in greedy] == [0, 0]
    visit.go(TWO + "&temperature=0.9")
    expect(note).to_contain_text("Both at temperature 0.9, with the same seed")
    first, second = bodies(visit, "What is a list?")
    assert first["seed"] == second["seed"]
    expect(visit.page.locator(".answer-foot").nth(1)).to_contain_text(f"seed {first['seed']}")


def test_page_speed_is_measured_between_the_first_and_the_last_token(visit: Visit) -> None:
    speeds = visit.page.evaluate("""async () => {
      const { speedOf } = await import("/static/write.js");
      const pieces = (count) => Array(count).fill(["61", -1]);
      return [
        speedOf({ pieces: pieces(11), burst: 1, first: 3, last: 3.5 }),   // 10 tokens in half a second
        speedOf({ pieces: pieces(1), burst: 1, first: 3, last: 3 }),      // a single token has no speed
        speedOf({ pieces: pieces(40), burst: 39, first: 3, last: 3.001 }), // all at once: nothing was measured
        speedOf({ pieces: pieces(31), prefix: 20, burst: 1, first: 0, last: 2 }), // behind 20 kept tokens
        speedOf({ pieces: pieces(9) }),                                   // kept by an older page
      ];
    }""")
    assert speeds == [20, None, None, 5, None]
