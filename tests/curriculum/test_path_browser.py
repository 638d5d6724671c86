"""The path in a browser: a question leads to a result in three steps, keys work on the map, all stays here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from newcomer_questions import HELD_OUT, TUNED_ON
from playwright.sync_api import Browser, Page, expect

from underhood.curriculum import results
from underhood.curriculum.index import covering, find
from underhood.curriculum.pages import graph
from underhood.curriculum.pages import site as site_module
from underhood.curriculum.pages.site import write_site
from underhood.curriculum.reproduce import reproduce
from underhood.curriculum.search.page_data import page_data
from underhood.curriculum.search.ranking import search
from underhood.curriculum.topics import before, topics


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, with a fresh result of one milestone, so that its figures are there whatever the repository holds."""
    folder, measured = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("results")
    results.save(measured, reproduce(find("p1913_markov"), "smoke", seeds=2))
    write_site(folder, [measured])
    return folder


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """A page that fails the test for anything on the console and any request that leaves the folder."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith("file://") else wrong.append(request.url))
    opened.goto(f"file://{site}/index.html")
    yield opened
    context.close()
    assert wrong == []


def test_question_leads_to_a_result_that_one_can_run_again_in_three_steps(page: Page):
    page.locator("#ask").fill("what was the first language model?")  # one
    page.locator("#answers a").first.click()  # two
    expect(page.locator("h1")).to_have_text("Markov counts the letters of Eugene Onegin")
    page.get_by_role("link", name="Again").click()  # three
    expect(page.locator("#again code")).to_contain_text("underhood reproduce p1913_markov")
    expect(page.locator(".claim .verdict").first).to_be_visible()


def test_map_obeys_the_keyboard_and_the_address_follows(page: Page):
    start = page.locator(".node").first
    start.focus()
    first = start.get_attribute("data-id")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    moved = page.evaluate("document.activeElement.dataset.id")
    assert moved
    assert moved != first
    page.keyboard.press("Enter")
    assert page.url.endswith(f"#{moved}")
    expect(page.locator("#panel")).to_be_visible()
    expect(page.locator(".node.selected")).to_have_attribute("data-id", moved)
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    page.go_back()
    expect(page.locator("#panel")).to_be_visible()


def test_selected_row_shows_its_way_and_what_is_known_leaves_it(page: Page):
    page.evaluate("location.hash = 'lm-compressor'")
    stops = page.locator("#panel li")
    expect(stops).to_have_count(4)
    assert page.locator(".node.needed").count() == 3
    assert page.locator(".edge.lit").count() >= 3
    page.evaluate("location.hash = 'ngram-smoothing'")
    page.get_by_role("button", name="I know this").click()
    page.evaluate("location.hash = 'lm-compressor'")
    expect(stops).to_have_count(2)


@pytest.mark.parametrize("view", ["1", "2", "3"])
def test_titles_on_the_map_are_whole_and_nothing_overlaps(page: Page, view: str):
    page.locator("#tier").select_option(view)
    cut = page.locator(".node:visible").evaluate_all(
        "all => all.filter((node) => node.scrollHeight > node.clientHeight + 1"
        " || node.scrollWidth > node.clientWidth + 1).map((node) => node.textContent)"
    )
    assert cut == []
    assert page.locator(".node:visible").count() == len(graph.view(int(view)))


def test_map_begins_with_the_shortest_path_and_says_where_to_start(page: Page):
    assert page.locator("#tier").input_value() == "1"
    assert page.locator(".node:visible").count() == len(graph.view(1)) < len(topics())
    expect(page.locator(".node.next")).to_have_attribute("data-id", graph.first_stop().id)
    expect(page.locator(".start a")).to_have_text(graph.first_stop().title)
    page.evaluate(f"location.hash = '{graph.first_stop().id}'")
    page.get_by_role("button", name="I know this").click()
    expect(page.locator(".start")).to_contain_text("Go on here")
    assert page.locator(".node.next").get_attribute("data-id") != graph.first_stop().id


def test_question_of_a_stop_is_shown_on_hover_and_on_focus(page: Page):
    question = covering()["perceptron"].question
    node = page.locator(".node[data-id=perceptron]")
    node.hover()
    expect(page.locator("#hint")).to_contain_text(question)
    page.mouse.move(5, 5)
    expect(page.locator("#hint")).to_be_hidden()
    node.focus()
    expect(page.locator("#hint")).to_contain_text(question)


def test_written_and_unwritten_stops_differ_at_once(page: Page):
    style = "node => getComputedStyle(node).borderStyle"
    assert page.locator(".node[data-id=perceptron]").evaluate(style) == "solid"
    assert page.locator(".node[data-id=rag-2020]").evaluate(style) == "dashed"


@pytest.mark.parametrize("goal", ["attention-sdpa", "dpo", "ppo", "rag-2020", "tf-bigbird"])
def test_way_passes_all_prerequisites_in_their_order(page: Page, goal: str):
    page.evaluate(f"location.hash = '{goal}'")
    stops = page.locator("#panel li").evaluate_all("all => all.map((stop) => stop.firstChild.textContent)")
    assert set(stops) == {topic.title for topic in before(goal)}
    position = {title: at for at, title in enumerate(stops)}
    for topic in before(goal):
        assert all(position[topics()[need].title] < position[topic.title] for need in topic.needs)
    assert page.locator(".node.needed:visible").count() == len(stops) - 1


def test_question_in_the_address_is_asked(page: Page, site: Path):
    page.goto(f"file://{site}/index.html?q=perceptron")
    expect(page.locator("#answers a").first).to_be_visible()
    assert page.locator(".node.match").count() > 0


def test_answers_lead_to_what_exists_and_say_what_each_is(page: Page):
    page.locator("#ask").fill("bigbird")
    expect(page.locator("#answers li.unwritten").first).to_contain_text("not written yet")
    page.locator("#ask").fill("temperature")
    first = page.locator("#answers a").first
    expect(first).to_contain_text("glossary")
    first.click()
    expect(page.locator("tr:target")).to_contain_text("Divides the logits")
    page.go_back()
    page.locator("#ask").fill("fine-tune")
    page.locator("#answers a", has_text="underhood finetune").first.click()
    expect(page.locator("section:target h2")).to_have_text("underhood finetune")


def test_page_ranks_as_the_command_does(browser: Browser):
    script = Path(site_module.__file__).with_name("search.js").read_text(encoding="utf-8")
    questions = [*TUNED_ON, *HELD_OUT, "constructor", "__proto__ toString", "naïve Bayes’s rule", "zzqx", ""]
    body = "return questions.map((q) => search(q).map((hit) => [hit.entry.target, hit.score]));"
    opened = browser.new_page()
    answered = opened.evaluate(
        f"([data, questions]) => {{ {script}\nconst search = searchIndex(data); {body} }}", [page_data(), questions]
    )
    opened.close()
    for question, answers in zip(questions, answered, strict=True):
        expected = search(question)
        assert [score for _, score in answers] == pytest.approx([hit.score for hit in expected], abs=0.02), question
        if len({round(hit.score, 1) for hit in expected}) == len(expected):
            assert [target for target, _ in answers] == [hit.entry.target for hit in expected], question


def test_plot_reads_its_values_off_by_key_and_by_pointer(page: Page, site: Path):
    page.goto(f"file://{site}/p1913_markov.html")
    area = page.locator(".drawn .area").first
    area.focus()
    page.keyboard.press("Home")
    first = area.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert area.get_attribute("aria-valuetext") != first
    box = area.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    expect(page.locator(".readout .place").first).not_to_be_empty()


@pytest.mark.parametrize("name", ["index", "p1913_markov", "p1958_perceptron", "docs-glossary", "commands", "code"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(browser: Browser, site: Path, name: str, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"file://{site}/{name}.html")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_pages_can_be_read_without_javascript(browser: Browser, site: Path):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"file://{site}/index.html")
    opened.locator("#list a", has_text="Markov counts").first.click()
    expect(opened.locator("h1")).to_have_text("Markov counts the letters of Eugene Onegin")
    assert opened.locator(".area path.line").count() >= 2
    assert opened.locator("math").count() >= 3
    context.close()
