"""Answers from documents on the chat page: sources below an answer, citations as links, the switch, the questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from documents_server import DEDENT, EXAMPLES, JOIN, LISTS, REFUSED, documents_server
from live_server import Live
from page_visit import Visit, answers, headless
from playwright.sync_api import Browser, expect

QUESTION = "What does os.path.join do?"
SORTING = "How do I keep the order when sorting lists?"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with documents_server(tmp_path_factory.mktemp("documents")) as live:
        yield live


def quoting_seed(live: Live, question: str) -> int:
    """A seed with which the random model quotes the passage and does not refuse, at temperature 2."""
    client = live.openai()
    for seed in range(50):
        message: Any = {"role": "user", "content": question}
        done = client.chat.completions.create(model="taught", messages=[message], temperature=2, seed=seed)
        if (done.choices[0].message.content or "").endswith("[1]"):
            return seed
    raise AssertionError("no seed of fifty quotes the passage")


def sources_of_api(live: Live, question: str) -> list[dict[str, Any]]:
    message: Any = {"role": "user", "content": question}
    done = live.openai().chat.completions.create(model="taught", messages=[message], max_tokens=1)
    return (done.model_extra or {})["retrieved"]


def test_page_sources_are_below_the_answer_and_open_with_marks(browser: Browser, live: Live) -> None:
    seed = quoting_seed(live, SORTING)
    with Visit(browser, live.url, f"/?temperature=2&seed={seed}") as visit:
        page = visit.page
        visit.ask(SORTING)
        section = page.get_by_role("region", name="Sources")
        expect(section.locator(".sources-title")).to_have_text("Sources")
        expect(section.locator("li")).to_have_count(1)
        expect(section.locator("summary")).to_have_text(f"[1]{LISTS.title}tour.md, line 12")
        expect(section.locator(".source-text")).to_be_hidden()
        section.locator("summary").click()
        expect(section.locator(".source-text")).to_have_text(LISTS.text)
        expect(section.locator("mark")).to_have_text(["list", "sorted", "sorting", "keeps", "order"])
        assert answers(visit)[0]["sources"] == sources_of_api(live, SORTING)
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_page_citation_is_a_link_to_its_source(browser: Browser, live: Live) -> None:
    seed = quoting_seed(live, QUESTION)
    with Visit(browser, live.url, f"/?temperature=2&seed={seed}") as visit:
        page = visit.page
        visit.ask(QUESTION)
        citation = page.locator(".answer-body a.citation")
        expect(citation).to_have_text("[1]")
        expect(citation).to_have_attribute("title", JOIN.title)
        details = page.locator(".sources details")
        address = page.url
        for _ in range(2):  # once more does not close it
            citation.click()
            expect(details).to_have_attribute("open", "")
        expect(details.locator("summary")).to_be_focused()
        assert page.url == address
        page.keyboard.press("Enter")
        expect(details.locator(".source-text")).to_be_hidden()
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_page_switch_turns_retrieval_off_and_on(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?max_tokens=6") as visit:
        page = visit.page
        sent: list[dict[str, Any]] = []
        page.on("request", lambda request: sent.append(request.post_data_json) if "/v1/chat" in request.url else None)
        expect(page.locator(".welcome")).to_contain_text("Answers from 3 passages of taught")
        page.get_by_role("button", name="Settings", exact=True).click()
        switch = page.get_by_role("switch", name="Answer from the documents")
        expect(switch).to_be_checked()
        switch.click()
        assert "retrieve=off" in page.url
        visit.ask(QUESTION)
        assert sent[0]["retrieve"] is False
        assert page.locator(".sources").count() == 0
        page.reload()
        visit.settled()
        page.get_by_role("button", name="Settings", exact=True).click()
        expect(switch).not_to_be_checked()
        switch.click()
        assert "retrieve" not in page.url  # as the server does by itself
        visit.ask(QUESTION)
        assert "retrieve" not in sent[1]
        expect(page.locator(".sources")).to_have_count(1)
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_page_has_no_switch_where_nothing_can_be_retrieved(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?model=taught:base") as visit:
        visit.page.get_by_role("button", name="Settings", exact=True).click()
        expect(visit.page.get_by_label("System prompt")).to_be_visible()
        assert visit.page.get_by_role("switch").count() == 0
        visit.page.get_by_label("Model", exact=True).select_option("taught:sft")
        expect(visit.page.get_by_role("switch")).to_have_count(1)


def test_page_says_quietly_that_nothing_matched(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?max_tokens=6") as visit:
        visit.ask("Hello!")
        section = visit.page.get_by_role("region", name="Sources")
        expect(section).to_have_text("No passage of the documents matched.")
        assert section.locator("details").count() == 0
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_page_suggests_questions_that_the_model_answers(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?max_tokens=6") as visit:
        page = visit.page
        expect(page.locator(".suggestion span")).to_have_text(
            [*sorted(example["question"] for example in EXAMPLES)[:3], REFUSED["question"]]
        )
        expect(page.locator(".suggestion small").last).to_have_text("invented: refused when it was built")
        page.locator(".suggestion").nth(1).click()
        visit.settled()
        expect(page.locator(".question-text")).to_have_text("parameters of textwrap.dedent")
        expect(page.locator(".source-title")).to_have_text(DEDENT.title)


def test_page_keeps_sources_in_edits_exports_and_links(browser: Browser, live: Live, tmp_path: Path) -> None:
    with Visit(browser, live.url, "/?temperature=0") as visit:
        page = visit.page
        visit.ask(QUESTION)
        page.get_by_role("button", name="Edit the answer").click()
        page.get_by_label("The answer as it should be").fill("It joins `a` and `*p`. See [1], not [2].")
        page.get_by_role("button", name="Keep").click()
        expect(page.locator(".answer-body a.citation")).to_have_text(["[1]"])
        expect(page.locator(".answer-body code")).to_have_text(["a", "*p"])
        expect(page.locator(".sources-title")).to_have_text("Sources")
        page.reload()
        visit.settled()
        expect(page.locator(".answer-body a.citation")).to_have_text(["[1]"])
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as coming:
            page.get_by_role("button", name="Markdown").click()
        coming.value.save_as(tmp_path / "talk.md")
        assert "- [1] os.path.join · module os.path, line 1" in (tmp_path / "talk.md").read_text(encoding="utf-8")
        link = page.evaluate("""async () => {
          const store = await import("/static/store.js");
          const talks = await import("/static/talk.js");
          return talks.asLink((await store.all())[0]);
        }""")
    with Visit(browser, live.url, f"/#talk={link}") as visit:
        expect(visit.page.locator(".source-title")).to_have_text(JOIN.title)


def test_page_citations_are_links_only_where_they_cite(browser: Browser, live: Live) -> None:
    """Three sources, of which the second is cited; code, links and numbers without a source stay as they are."""
    with Visit(browser, live.url) as visit:
        visit.page.locator(".welcome").wait_for()
        actual = visit.page.evaluate("""async () => {
          const { citedIn, linkCitations, SourceList } = await import("/static/sources.js");
          const { markdown } = await import("/static/markdown.js");
          const source = (number, title) => ({ number, title, text: "Text", source: "a.md", line: 1, marks: [] });
          const sources = [source(1, ""), source(2, "<b>B</b>"), source(3, "C")];
          const text = "As [2] and again[2] say, `x[1]` is not [4], and [a](https://example.org/[3]) neither.";
          const box = document.createElement("div");
          box.append(...markdown(text));
          const opened = [];
          linkCitations([...box.children], sources, (number) => opened.push(number));
          const links = [...box.querySelectorAll("a.citation")];
          for (const link of links) link.click();
          const list = new SourceList(sources);
          const cited = citedIn("As [2] says.", sources);
          list.update(cited, true);
          const reading = list.title.textContent;
          list.update(cited, false);
          const uncited = [...list.element.querySelectorAll("li")].map((item) => item.className);
          list.update(new Set(), false);
          return { text: box.textContent, links: links.length, opened, reading, uncited, none: list.title.textContent,
            titles: [...list.element.querySelectorAll("summary")].map((summary) => summary.textContent) };
        }""")
        assert actual == {
            "text": "As [2] and again[2] say, x[1] is not [4], and a neither.",
            "links": 2,
            "opened": [2, 2],
            "reading": "Reading 3 passages",
            "uncited": ["uncited", "", "uncited"],
            "none": "Read, but not cited",
            "titles": ["[1]a.md", "[2]<b>B</b>a.md", "[3]Ca.md"],
        }


def test_page_token_view_reads_the_answer_behind_its_passages(browser: Browser, live: Live) -> None:
    """The tokens' probabilities are those that the API gave while it wrote, with the passage in the prompt."""
    with Visit(browser, live.url, "/?temperature=0") as visit:
        page = visit.page
        visit.ask(QUESTION)
        [answer] = answers(visit)
        with page.expect_response("**/ui/tokens") as coming:
            page.get_by_role("button", name="Tokens", exact=True).click()
        actual = [token["logprob"] for token in coming.value.json()["tokens"]]
        assert actual == pytest.approx([logprob for _, logprob in answer["pieces"]], abs=1e-3)
        assert len(actual) > 10


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_page_sources_are_accessible_and_fit(browser: Browser, live: Live, width: int, scheme: Any) -> None:
    seed = quoting_seed(live, SORTING)
    viewport = {"width": width, "height": 800}
    address = f"/?temperature=2&seed={seed}"
    with Visit(browser, live.url, address, viewport=viewport, color_scheme=scheme, bypass_csp=True) as visit:
        page = visit.page
        visit.ask(SORTING)
        page.locator("a.citation").click()
        page.get_by_role("button", name="Settings", exact=True).click()
        assert visit.overflow <= 0
        actual = Axe().run(page).response["violations"]
        serious = [(item["id"], item["nodes"][0]["html"][:120]) for item in actual if item["impact"] in SERIOUS]
        assert serious == []
        assert visit.quiet, (visit.complaints, visit.foreign)
