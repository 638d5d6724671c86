"""Two answers beside each other: what differs is marked, for eyes that see colours and for those that don't."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from page_visit import GREEDY, Visit, headless, page_server
from playwright.sync_api import expect

TWO = GREEDY + "&model=small:dpo&model=small:sft"
MARK = """async ([one, two]) => {
  const { markDifferences } = await import("/static/differ.js");
  const { markdown } = await import("/static/markdown.js");
  const views = [one, two].map((text) => {
    const [body, foot] = [document.createElement("div"), document.createElement("footer")];
    body.append(...markdown(text));
    return { body, foot, readable: true };
  });
  const whole = views.map(({ body }) => body.textContent);
  let wanted = true;
  markDifferences(views, () => wanted);
  const marked = (body) => [...body.querySelectorAll("mark")].map((mark) => mark.textContent);
  const found = views.map(({ body, foot }) => [marked(body), foot.textContent]);
  const kept = views.every(({ body }, side) => body.textContent === whole[side]);
  wanted = false;
  views[1].drawn();
  return { found, kept, left: views.map(({ body, foot }) => marked(body).length + foot.children.length) };
}"""


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with (
        page_server(tmp_path_factory.mktemp("differences")) as live,
        headless() as browser,
        Visit(browser, live.url, TWO) as visit,
    ):
        yield visit


def common(first: list[int], two: list[int]) -> int:
    """The length of the longest common subsequence, by the textbook's recurrence."""
    row = [0] * (len(two) + 1)
    for left in first:
        before = row[:]
        for index, right in enumerate(two):
            row[index + 1] = before[index] + 1 if left == right else max(before[index + 1], row[index])
    return row[-1]


def test_page_differences_leave_a_longest_common_subsequence(visit: Visit) -> None:
    rng = random.Random(0)
    pairs = [[[rng.randrange(4) for _ in range(rng.randrange(14))] for _ in range(2)] for _ in range(200)]
    pairs += [[[1, 2, 3], [1, 2, 3]], [[], [1]], [[1, 1, 1], [1]]]
    script = """async (pairs) => {
      const { differing } = await import("/static/differ.js");
      return pairs.map(([one, two]) => differing(one, two).map((places) => [...places]));
    }"""
    for (first, two), (left, right) in zip(pairs, visit.page.evaluate(script, pairs), strict=True):
        kept = [word for index, word in enumerate(first) if index not in left]
        assert kept == [word for index, word in enumerate(two) if index not in right]
        assert len(kept) == common(first, two)


def test_page_differences_are_marked_within_any_markup_and_counted_in_words(visit: Visit) -> None:
    first = "A **list** holds items.\n\n- they can be changed\n- `len(x)` counts them"
    two = "A **tuple** holds items.\n\n- they can not be changed ever\n- `len(x)` counts them"
    made = visit.page.evaluate(MARK, [first, two])
    assert made["found"][0] == [["list"], "1 of 11 words differ"]
    assert [words.strip() for words in made["found"][1][0]] == ["tuple", "not", "ever"]
    assert made["found"][1][1] == "3 of 13 words differ"
    assert made["kept"]
    assert made["left"] == [0, 0]
    same = visit.page.evaluate(MARK, ["The same.", "The  same."])
    assert same["found"] == [[[], "the same words"]] * 2


def test_page_differences_show_on_two_answers_and_can_be_switched_off(visit: Visit) -> None:
    page = visit.page
    visit.ask("What is a list?")
    answers = page.locator(".turn .answer")
    expect(answers).to_have_count(2)
    expect(page.locator("mark.differs").first).to_be_visible()
    expect(page.locator(".differs-note")).to_have_count(2)
    # Not by colour alone: there is a line below each word.
    line = page.locator("mark.differs").first.evaluate("(mark) => getComputedStyle(mark).borderBottomWidth")
    assert float(line.removesuffix("px")) >= 1
    page.get_by_role("button", name="Tokens", exact=True).first.click()  # nothing to compare with then
    expect(page.locator("mark.differs")).to_have_count(0)
    page.get_by_role("button", name="Tokens", exact=True).first.click()
    expect(page.locator("mark.differs").first).to_be_visible()
    toggle = page.get_by_role("button", name="Mark the words that differ")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(page.locator("mark.differs")).to_have_count(0)
    expect(toggle).to_have_attribute("aria-pressed", "false")
    assert "marks=off" in page.url
    page.reload()
    expect(page.locator(".turn .answer")).to_have_count(2)
    expect(page.locator("mark.differs")).to_have_count(0)
    page.get_by_role("button", name="Mark the words that differ").click()
    expect(page.locator("mark.differs").first).to_be_visible()
    page.get_by_role("button", name="End the comparison").click()
    expect(page.locator("mark.differs")).to_have_count(0)
    expect(page.get_by_role("button", name="Mark the words that differ")).to_have_count(0)
    assert visit.quiet, (visit.complaints, visit.foreign)
