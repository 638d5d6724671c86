"""Interventions by click on the page, in a browser: heads, weights and keys taken away, patches turned round, the
checkpoints scrubbed, beside what Python says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from inside_visit import Inside, numbers, panel
from page_visit import Visit, headless
from playwright.sync_api import Browser, Locator, Page

from underhood.infer.load import LoadedModel, load
from underhood.inspect.ablation import Ablated, AblatedHead, MaskedEdge, MaskedKey, ablate
from underhood.inspect.attribution import attribute
from underhood.inspect.deletion import deletion_curves
from underhood.inspect.patching import patch_residual
from underhood.inspect.target import Target
from underhood.inspect.through_training import through_training
from underhood.inspect.training_views import induction_view
from underhood.web.inside.file import write_file
from underhood.web.inside.subjects import InsideModels, Subject

PROMPT = "The first note is about a list of items."
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tiny_run: Path) -> Iterator[Inside]:
    inside = Inside(InsideModels.open(tiny_run), PROMPT)
    yield inside
    inside.close()


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load(tiny_run)


@pytest.fixture(scope="module")
def subject(served: Inside) -> Subject:
    return served.models.subject(served.models.first, PROMPT)


@pytest.fixture(scope="module")
def other_prompt(loaded: LoadedModel, subject: Subject) -> str:
    """A prompt of as many tokens that differs from the first one in a letter."""
    changed = (PROMPT[:at] + letter + PROMPT[at + 1 :] for at in range(4, len(PROMPT)) for letter in "xzqk")
    return next(text for text in changed if len(loaded.prompt_ids(text)) == len(subject.ids))


def wait_in_sight(page: Page, name: str, selector: str, text: str) -> None:
    """Waits for a text in a panel that is kept in sight: others grow above it, and one out of sight is not drawn."""
    page.wait_for_function(
        """([name, selector, text]) => {
          const panel = document.getElementById(`panel-${name}`);
          const { top, bottom } = panel.getBoundingClientRect();
          if (bottom < 0 || top > innerHeight) panel.scrollIntoView();
          return [...panel.querySelectorAll(selector)].some((each) => each.textContent.includes(text));
        }""",
        arg=[name, selector, text],
    )


def assert_shows(section: Locator, loaded: LoadedModel, subject: Subject, ablated: Ablated, position: int) -> None:
    """The table of next tokens is that of an ablation: the likeliest before, then those that only come after."""
    every = ablate(loaded, subject.ids, ablated, range(loaded.tokenizer.vocab_size), position=position)
    ids = list(dict.fromkeys(every.logprobs.topk(5).indices.flatten().tolist()))
    rows = section.locator(".changes tbody tr").all()
    assert [row.locator("code").inner_text() for row in rows] == [every.pieces[id] for id in ids]
    for row, id in zip(rows, ids, strict=True):
        cells = [numbers(cell.inner_text())[0] for cell in row.locator("td").all()]
        before, after = every.logprobs[:, id].tolist()
        assert cells == pytest.approx([before, after, after - before], abs=0.0061)


def test_a_head_is_taken_away_by_click_and_the_link_keeps_it(
    browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject
):
    last = len(subject.ids) - 1
    with Visit(browser, served.url, "/inside#layer=0&head=1") as visit:
        section = panel(visit.page, "attention")
        assert section.locator(".changes").is_hidden()
        for mode in ("zero", "mean"):
            section.locator(f"[data-cut={mode}]").click()
            wait_in_sight(
                visit.page, "attention", ".cut .formula", "set to its mean" if mode == "mean" else "set to zero"
            )
            panel(visit.page, "attention")
            assert_shows(section, loaded, subject, AblatedHead(0, 1, mode), last)
        assert "cut=mean" in visit.page.url
        visit.page.reload()
        visit.page.locator(".chip.here").wait_for()
        section = panel(visit.page, "attention")
        assert_shows(section, loaded, subject, AblatedHead(0, 1, "mean"), last)
        section.locator("[data-cut=nothing]").press("Enter")
        section.locator(".changes").wait_for(state="hidden")
        assert "cut=" not in visit.page.url
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_a_weight_and_a_key_are_masked_from_the_pattern(
    browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject
):
    last = len(subject.ids) - 1
    token, key = last - 1, 3
    with Visit(browser, served.url, f"/inside#token={token}&layer=0&head=0&key={key + 1}&cut=edge") as visit:
        page = visit.page
        section = panel(page, "attention")
        pattern = section.locator('.heat[aria-label^="Pattern of the head"]')
        pattern.press("ArrowLeft")
        page.wait_for_function(f"() => location.hash.includes('key={key}&')")
        panel(page, "attention")
        assert_shows(section, loaded, subject, MaskedEdge(0, 0, token, key), token)
        section.get_by_label("Prediction after").select_option("end")
        wait_in_sight(page, "attention", ".cut .formula", f"({last}) changes")
        assert_shows(section, loaded, subject, MaskedEdge(0, 0, token, key), last)
        section.locator("[data-cut=key]").click()
        wait_in_sight(page, "attention", ".cut .formula", "for all later tokens")
        assert_shows(section, loaded, subject, MaskedKey(0, 0, key), last)
        page.get_by_label("Tokens of the prompt", exact=True).press("Home")
        wait_in_sight(page, "attention", "[data-cut=edge]", subject.trace.pieces[0])
        panel(page, "attention")
        assert section.locator("[data-cut=edge]").is_disabled()
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_chosen_next_tokens_come_first(browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject):
    with Visit(browser, served.url, "/inside#layer=0&head=0&cut=zero") as visit:
        section = panel(visit.page, "attention")
        section.get_by_label("Next tokens to follow").fill("a|e")
        section.locator(".cut form").get_by_role("button", name="Follow").click()
        wait_in_sight(visit.page, "attention", ".changes tbody", "chosen")
        ids = [loaded.tokenizer.encode(word)[0] for word in "ae"]
        expected = ablate(loaded, subject.ids, AblatedHead(0, 0), ids)
        for row, change in zip(section.locator(".changes tbody tr").all(), expected.logprob_changes, strict=False):
            assert numbers(row.locator("td").last.inner_text())[0] == pytest.approx(float(change), abs=0.0061)


def test_attribution_has_deletion_and_insertion_curves(
    browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject
):
    best = loaded.next(PROMPT, k=1)[0].id
    methods = attribute(loaded, subject.ids, Target(token=best))
    with Visit(browser, served.url, "/inside") as visit:
        section = panel(visit.page, "attribution")
        judged = section.locator(".curves p.small").all_inner_texts()
        for words, insertion in zip(judged, (False, True), strict=True):
            curve = deletion_curves(loaded, methods, insertion=insertion, orders=12)[0]
            shown = numbers(words)
            assert shown[:3] == pytest.approx([curve.area, curve.random_area, curve.random_deviation], abs=0.002)
            better = "a better ranking than chance" in words
            assert better == (curve.gain > 2 * curve.random_deviation)
        ends = section.locator(".curves .read").all_inner_texts()
        assert "replaced" in ends[0]
        assert "put back" in ends[1]
        assert numbers(ends[1])[1] == pytest.approx(methods[0].score, abs=0.006)
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_patching_turns_round(
    browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject, other_prompt: str
):
    [first], [second] = loaded.tokenizer.encode("a"), loaded.tokenizer.encode("e")
    given = f"against={quote(other_prompt)}&answer=a&other=e&token=0&layer=0"
    token = next(at for at, id in enumerate(subject.ids) if id != loaded.prompt_ids(other_prompt)[at])
    given = given.replace("token=0", f"token={token}")
    with Visit(browser, served.url, f"/inside#{given}") as visit:
        section = panel(visit.page, "patching")
        restored = []
        for direction, ends in (("", (other_prompt, PROMPT)), ("out", (PROMPT, other_prompt))):
            section.get_by_label("Direction").select_option(direction)
            wait_in_sight(visit.page, "patching", ".formula", "Its run gets" if direction else "This run gets")
            sweep = patch_residual(loaded, *ends, answer=first, other=second)
            shown = numbers(section.locator(".heat-read").inner_text().rpartition(":")[2])[0]
            assert shown == pytest.approx(100 * float(sweep.restored[0, token]), abs=1)
            restored.append(sweep)
        told = numbers(section.locator(".formula").inner_text().partition(": ")[2])
        assert told[:2] == pytest.approx([restored[0].target, restored[0].source], abs=0.01)
        assert "direction=out" in visit.page.url
        section.get_by_label("Other prompt", exact=True).fill(PROMPT + " And more.")
        section.get_by_role("button", name="Patch").click()
        wait_in_sight(visit.page, "patching", ".panel-note", "expected equally many")
        assert section.locator(".heat").is_hidden()


def test_checkpoints_are_read_once_and_scrubbed(browser: Browser, served: Inside, tiny_run: Path):
    history = through_training(tiny_run, PROMPT, induction_view())
    ids = list(served.models.choices)
    posted: list[dict[str, Any]] = []
    with Visit(browser, served.url, "/inside") as visit:
        page = visit.page
        page.on("request", lambda request: posted.append(json.loads(request.post_data)) if request.post_data else None)
        section = panel(page, "training")
        [[layer, head, _]] = history.values[-1].strongest(count=1)
        curve = section.locator(".area").nth(1)
        curve.press("Home")  # chooses the first checkpoint
        page.wait_for_function(f"() => location.hash.includes('model={quote(ids[0])}')")
        panel(page, "training")
        for number, id in enumerate(ids):
            section.get_by_label("Checkpoint").fill(str(number))
            wait_in_sight(page, "training", ".curves div:nth-child(2) .read", f"{id}: ")
            words = curve.get_attribute("aria-valuetext") or ""
            assert words.startswith(f"{id}: layer {layer} head {head} ")
            expected = history.values[number]
            row = expected.layers.index(layer)
            shown = numbers(words.partition(f"head {head} ")[2])
            assert shown[0] == pytest.approx(float(expected.induction[row, head]), abs=0.006)
            assert shown[-1] == pytest.approx(expected.first_loss - expected.second_loss, abs=0.006)
        own = [each["view"] for each in posted if each.get("view", "").startswith("training")]
        assert sorted(own) == ["training", "training_induction"]
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_a_file_holds_the_training_and_the_heads_that_matter(
    browser: Browser, tiny_run: Path, tmp_path: Path, loaded: LoadedModel, subject: Subject
):
    path = tmp_path / "inside.html"
    write_file(path, InsideModels.open(tiny_run), PROMPT)
    with Visit(browser, path.as_uri(), "") as visit:
        visit.page.locator(".chip.here").wait_for()
        panel(visit.page, "ablation").locator(".choice").first.click()
        section = panel(visit.page, "attention")
        section.locator("[data-cut=zero]").click()
        wait_in_sight(visit.page, "attention", ".cut .formula", "changes by")
        state = dict(each.split("=") for each in visit.page.url.partition("#")[2].split("&"))
        head = AblatedHead(int(state["layer"]), int(state["head"]), "zero")
        assert_shows(section, loaded, subject, head, len(subject.ids) - 1)
        section.locator("[data-cut=edge]").click()
        wait_in_sight(visit.page, "attention", ".cut .formula", "This file holds")
        training = panel(visit.page, "training")
        assert training.locator(".area").count() == 2
        visit.page.get_by_label("Tokens of the prompt", exact=True).press("ArrowLeft")
        wait_in_sight(visit.page, "training", "h3", subject.trace.pieces[-1])
        assert training.locator("path.line").count() >= 2
        assert visit.quiet, (visit.complaints, visit.foreign)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_taken_away_fits_a_phone(browser: Browser, served: Inside, other_prompt: str, scheme: Any):
    options = {"viewport": {"width": 360, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    state = f"token=6&key=2&cut=edge&measured=end&direction=out&answer=a&other=e&against={quote(other_prompt)}"
    with Visit(browser, served.url, f"/inside#{state}", **options) as visit:
        for name in ("attention", "attribution", "patching", "training", "induction"):
            panel(visit.page, name)
        assert visit.overflow <= 0
        actual = Axe().run(visit.page).response["violations"]
        assert [(item["id"], item["nodes"][0]["html"][:160]) for item in actual if item["impact"] in SERIOUS] == []
        assert visit.quiet, (visit.complaints, visit.foreign)
