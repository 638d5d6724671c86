"""What becomes of conversations: feedback, exports, links, the list of them; and text that must stay text."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Live
from page_visit import GREEDY, Visit, headless, page_server, said
from playwright.sync_api import Browser, expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    with page_server(folder) as live:
        yield live


def test_page_keeps_feedback_with_the_whole_exchange(browser: Browser, live: Live, folder: Path) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask("What is feedback?")
        page.get_by_role("button", name="Good answer").click()
        expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Edit the answer").click()
        page.get_by_label("The answer as it should be").fill("A mutable sequence.")
        page.get_by_role("button", name="Keep").click()
        expect(page.locator(".answer-body")).to_have_text("A mutable sequence.")
        expect(page.locator("#said")).to_have_text("Noted, thank you")
        answer = said(visit)[0]
        with sqlite3.connect(folder / "feedback.db") as database:
            names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            rows = [str(row) for name in names for row in database.execute(f"select * from {name}")]
        kept = [row for row in rows if "What is feedback?" in row and (answer in row or repr(answer)[1:-1] in row)]
        assert any("'up'" in row for row in kept)
        assert any("A mutable sequence." in row for row in kept)
        assert visit.quiet, visit.complaints


def test_page_exports_and_opens_again(browser: Browser, live: Live, tmp_path: Path) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask("What is a list?")
        answer = said(visit)[0]
        files: dict[str, Path] = {}
        page.get_by_role("button", name="Export").click()
        for name in ("Markdown", "Messages", "Everything"):
            with page.expect_download() as coming:
                page.get_by_role("button", name=name).click()
            files[name] = tmp_path / coming.value.suggested_filename
            coming.value.save_as(files[name])
        assert files["Markdown"].name == "what-is-a-list.md"
        assert answer in files["Markdown"].read_text()
        assert json.loads(files["Messages"].read_text())["messages"] == [
            {"role": "user", "content": "What is a list?"},
            {"role": "assistant", "content": answer},
        ]
        page.get_by_label("Open an export").set_input_files(files["Everything"])
        expect(page.locator(".talks a")).to_have_count(2)
        expect(page.locator(".question-text")).to_have_text("What is a list?")
        page.get_by_role("button", name="Export").click()
        broken = tmp_path / "broken.json"
        broken.write_text('{"turns": 3}')
        page.get_by_label("Open an export").set_input_files(broken)
        expect(page.get_by_role("alert").last).to_contain_text("not a conversation")
        assert visit.quiet, visit.complaints


def test_page_link_reproduces_the_conversation_elsewhere(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.ask("What is a list? 日本語")
        visit.page.get_by_role("button", name="Export").click()
        visit.page.get_by_role("button", name="Copy link").click()
        expect(visit.page.get_by_role("dialog")).to_have_count(0)
        link = visit.page.evaluate("navigator.clipboard.readText()").removeprefix(live.url)
        answer = said(visit)[0]
    with Visit(browser, live.url, link) as other:
        expect(other.page.locator(".question-text")).to_have_text("What is a list? 日本語")
        assert said(other) == [answer]
        assert "temperature=0" in other.page.url
        assert other.quiet
    with Visit(browser, live.url, link[:-20]) as cut:
        expect(cut.page.get_by_role("alert")).to_contain_text("damaged")


def test_page_conversations_are_found_opened_removed_and_taken_back(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask("First about lists")
        page.get_by_role("button", name="New conversation").click()
        page.locator(".welcome").wait_for()
        visit.ask("Second about items")
        expect(page.locator(".talks a")).to_have_count(2)
        page.get_by_label("Search the conversations").fill("lists")
        expect(page.locator(".talks a")).to_have_count(1)
        page.locator(".talks a").click()
        expect(page.locator(".question-text")).to_have_text("First about lists")
        page.go_back()
        expect(page.locator(".question-text")).to_have_text("Second about items")
        page.get_by_label("Search the conversations").fill("")
        page.get_by_role("button", name="Remove Second about items").click()
        expect(page.locator(".talks a")).to_have_count(1)
        page.get_by_role("button", name="Take it back").click()
        expect(page.locator(".question-text")).to_have_text("Second about items")
        expect(page.locator(".talks a")).to_have_count(2)
        assert visit.quiet


def test_page_text_of_models_cannot_become_markup(browser: Browser, live: Live) -> None:
    hostile = "\n".join(
        (
            "<img src=x onerror=\"document.title='hacked'\">",
            "[click](javascript:alert(1)) [data](data:text/html,x) [fine](https://example.org/)",
            "```html\n<script>document.title='hacked'</script>\n```",
            "| a | b |\n|---|---|\n| <b>x</b> | `<i>` |",
            "",
            "**bold** *emphasis* f(*args, **kwargs) `code`",
        )
    )
    with Visit(browser, live.url) as visit:
        actual = visit.page.evaluate(
            """async (text) => {
              const { markdown } = await import("/static/markdown.js");
              const box = document.createElement("div");
              box.append(...markdown(text));
              document.body.append(box);
              const texts = (selector) => [...box.querySelectorAll(selector)].map((one) => one.textContent);
              return { links: [...box.querySelectorAll("a")].map((a) => a.href), raw: texts("img, script, b"),
                strong: texts("strong"), em: texts("em"), code: texts("code"), text: box.textContent };
            }""",
            hostile,
        )
        assert actual["links"] == ["https://example.org/"]
        assert actual["raw"] == []
        assert actual["strong"] == ["bold"]
        assert actual["em"] == ["emphasis"]
        assert "f(*args, **kwargs)" in actual["text"]
        assert actual["code"] == ["<script>document.title='hacked'</script>", "<i>", "code"]
        assert visit.page.title() != "hacked"
        assert visit.quiet
