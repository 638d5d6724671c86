"""The page that looks into a model, in a browser, over a model that was trained in this session: every panel shows what
Python says, from a server and from a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from inside_payload import PROMPT as CHARACTERS
from inside_payload import convolving_only, family
from inside_visit import Inside, numbers, panel, reading, wait_for_text
from page_visit import PATIENCE, Visit, headless
from playwright.sync_api import Browser

from underhood.infer.load import LoadedModel, load
from underhood.infer.sample import SamplingSpec, distribution
from underhood.inspect.contributions import contributions
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
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


@pytest.fixture(scope="module")
def file(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "inside.html"
    write_file(path, InsideModels.open(tiny_run), PROMPT, against=None)
    return path


@pytest.fixture(scope="module", params=["served", "file"])
def visit(request: pytest.FixtureRequest, browser: Browser, served: Inside, file: Path) -> Iterator[Visit]:
    where = (served.url, "/inside") if request.param == "served" else (file.as_uri(), "")
    with Visit(browser, *where) as opened:
        opened.page.locator(".chip.here").wait_for()
        yield opened


def test_lens_reads_what_the_python_lens_does(visit: Visit, loaded: LoadedModel, subject: Subject):
    lens = logit_lens(loaded, subject.trace)
    section = panel(visit.page, "lens")
    words = reading(section)
    layers, last = len(loaded.decoder.blocks), len(subject.ids) - 1
    layer = layers - 1
    assert words.startswith(f"Layer {layer}, after {subject.trace.pieces[last]}:")
    shown = re.findall(r"([\d.]+)\s%", words)
    expected = [100 * float(share) for share in lens.probabilities[layer, last]]
    assert [float(share) for share in shown] == pytest.approx(expected, rel=0.06, abs=0.06)
    assert numbers(words)[-1] == int(lens.ranks[layer, last])
    box = section.locator(".heat")
    box.focus()
    box.press("ArrowUp")
    assert re.match("Layer (end|\\d+), after", reading(section))
    visit.page.get_by_label("Tokens of the prompt", exact=True).press("ArrowLeft")
    wait_for_text(visit.page, "#panel-lens .heat-read", f"after {subject.trace.pieces[last - 1]}")
    assert float(lens.entropy[layer, last - 1]) == pytest.approx(
        float(re.findall(r"([\d.]+) bits", reading(section))[0]), abs=0.06
    )
    visit.page.get_by_label("Tokens of the prompt", exact=True).press("End")


def test_attention_and_its_reason_are_the_trace_s(visit: Visit, subject: Subject):
    page = visit.page
    section = panel(page, "attention")
    last = len(subject.ids) - 1
    pattern_HTT = subject.trace.pattern(0)
    weights = [float(each) for each in pattern_HTT[0, last].topk(3).values]
    choices = section.locator(".choice").all_inner_texts()
    shown = [float(re.findall(r"([\d.]+)\s%", text)[0]) for text in choices[:3]]
    assert shown == pytest.approx([100 * weight for weight in weights], abs=0.6)
    words = section.locator(".why .formula").inner_text()
    key = int(pattern_HTT[0, last].argmax())
    q_K, k_K = subject.trace["query.0"][0, last], subject.trace["key.0"][0, key]
    group = subject.trace["key.0"][0]
    assert group.shape == (last + 1, len(q_K))
    dot = float(q_K @ k_K)
    assert numbers(words.partition("q · k = ")[2])[0] == pytest.approx(dot, abs=0.01)
    measured = section.locator(".heat").first.get_attribute("aria-label") or ""
    own = float(pattern_HTT[0].diagonal().mean())
    assert numbers(measured)[3] == pytest.approx(own, abs=0.01)


def test_parts_add_up_to_the_score_that_is_shown(visit: Visit, loaded: LoadedModel, subject: Subject):
    section = panel(visit.page, "parts")
    last = len(subject.ids) - 1
    best = int(logit_lens(loaded, subject.trace).ids[-1, last, 0])
    expected = contributions(loaded, subject.trace, best, position=last)
    assert numbers(section.locator(".formula").inner_text())[-1] == pytest.approx(expected.score, abs=0.01)
    section.get_by_label("All parts, in the order of the pass").check()
    bars = {
        bar.locator(".name").inner_text(): numbers(bar.locator(".number").inner_text())[0]
        for bar in section.locator(".signed-bar").all()
    }
    values = [float(value) for value in expected.values]
    assert list(bars.values()) == pytest.approx(values, abs=0.006)
    assert list(bars) == [name.replace(".", " ") for name in expected.names]


def test_walk_shows_the_modules_output_and_sums_that_make_it(visit: Visit, loaded: LoadedModel, subject: Subject):
    page = visit.page
    section = panel(page, "walk")
    last = len(subject.ids) - 1
    outputs: list[Any] = []
    module = loaded.decoder.get_submodule("blocks.0.feedforward.down")
    handle = module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.no_grad():
        loaded.decoder(torch.tensor([subject.ids]))
    handle.remove()
    section.get_by_role("button", name=re.compile("^down")).click()
    page.wait_for_function("() => document.querySelector('#panel-walk dl').textContent.includes('feedforward.down')")
    page.wait_for_selector("#panel-walk .worked li")
    row_D = outputs[0][0, last]
    for item in section.locator(".worked li").all():
        index, value = numbers(item.locator(".formula").first.inner_text())[:2]
        assert value == pytest.approx(float(row_D[int(index)]), abs=0.001)
        assert numbers(item.inner_text())[-1] == pytest.approx(value, abs=0.002)
    index = int(row_D.abs().argmax())
    assert numbers(reading(section))[-2:] == pytest.approx([index, float(row_D[index])], abs=0.002)
    assert "operation=blocks.0.feedforward.down" in page.url


def test_tokens_have_their_probabilities_and_merges(visit: Visit, loaded: LoadedModel, subject: Subject):
    section = panel(visit.page, "tokens")
    labels = [chip.get_attribute("aria-label") or "" for chip in section.locator(".token-view .strip .token").all()]
    with torch.no_grad():
        shares_TV = loaded.decoder(torch.tensor([subject.ids]))[0].softmax(dim=-1)
    expected = [100 * float(shares_TV[at, id]) for at, id in enumerate(subject.ids[1:])]
    shown = [float(re.findall(r"([\d.]+)\s%", label)[-1]) for label in labels]
    assert shown == pytest.approx(expected, rel=0.06, abs=0.06)
    slider = section.get_by_label("Merges")
    pieces = section.locator(".merging .token")
    assert pieces.count() == len(loaded.tokenizer.encode(PROMPT))
    slider.fill("0")
    assert pieces.count() == len(PROMPT.encode())


def test_checks_hold_and_are_shown(visit: Visit):
    section = panel(visit.page, "checks")
    assert section.locator("td.holds").count() == 3
    assert section.locator("td.fails").count() == 0


def test_page_is_quiet_after_all_panels(visit: Visit):
    for section in visit.page.locator(".panel").all():
        section.scroll_into_view_if_needed()
        visit.page.wait_for_timeout(50)
    visit.page.wait_for_timeout(300)
    assert visit.quiet, (visit.complaints, visit.foreign)


def test_patching_restores_what_python_says(
    browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject, other_prompt: str
):
    with Visit(browser, served.url, "/inside") as visit:
        other = served.models.subject(served.models.first, other_prompt)
        section = panel(visit.page, "patching")
        section.get_by_label("Other prompt", exact=True).fill(other_prompt)
        section.get_by_label("Answer to the other prompt").fill("a")
        section.get_by_label("Answer to this prompt").fill("e")
        section.get_by_role("button", name="Patch").click()
        section.locator(".heat").wait_for()
        [first], [second] = loaded.tokenizer.encode("a"), loaded.tokenizer.encode("e")
        sweep = patch_residual(loaded, other.ids, subject.ids, answer=first, other=second)
        told = numbers(section.locator(".formula").inner_text().partition(": ")[2])
        assert told[:2] == pytest.approx([sweep.target, sweep.source], abs=0.01)
        layer, token = 0, next(at for at, id in enumerate(subject.ids) if id != other.ids[at])
        page = visit.page
        page.evaluate(
            """([token, layer]) => {
              const state = new URLSearchParams(location.hash.slice(1));
              state.set("token", token);
              state.set("layer", layer);
              location.hash = state;
            }""",
            [token, layer],
        )
        wait_for_text(page, "#panel-patching .heat-read", f"Layer {layer}, ")
        words = reading(section)
        assert float(re.findall(r"([−\d.]+)\s%", words)[0].replace("−", "-")) == pytest.approx(
            100 * float(sweep.restored[layer, token]), abs=1
        )
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_stages_are_compared_and_scrubbed(browser: Browser, served: Inside, tiny_run: Path):
    with Visit(browser, served.url, "/inside#beside=base") as visit:
        section = panel(visit.page, "compare")
        base = load(tiny_run, "base")
        best = base.next(PROMPT, k=1)[0]
        words = section.locator(".formula").inner_text().partition("beside")[2]
        assert f"{best.piece} " in words
        assert section.locator("figure .heat").count() == 2
        slider = panel(visit.page, "training").get_by_label("Checkpoint")
        ids = list(served.models.choices)
        slider.fill("0")
        visit.page.wait_for_function(f"() => location.hash.includes('model={quote(ids[0])}')")
        visit.page.wait_for_function(f"() => document.querySelector('#model').value === '{ids[0]}'")
        chart = section.page.locator("#panel-training .area").first
        wait_for_text(visit.page, "#panel-training .read", f"{ids[0]}: ")
        first = served.models.model(ids[0])
        followed = load(tiny_run).next(PROMPT, k=1)[0].id
        with torch.no_grad():
            share = float(first.decoder(torch.tensor([first.prompt_ids(PROMPT)]))[0, -1].softmax(dim=-1)[followed])
        text = chart.get_attribute("aria-valuetext") or ""
        assert float(re.findall(r"([\d.]+)\s%", text)[0]) == pytest.approx(100 * share, rel=0.06, abs=0.06)
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_generation_draws_and_branches(browser: Browser, served: Inside, loaded: LoadedModel, subject: Subject):
    with Visit(browser, served.url, "/inside") as visit:
        section = panel(visit.page, "generation")
        section.get_by_label("Temperature").fill("0.5")
        section.get_by_label("Top-k").fill("5")
        visit.page.wait_for_function("() => document.querySelectorAll('.next .number')[5].textContent.includes('<')")
        with torch.no_grad():
            logits_V = loaded.decoder(torch.tensor([subject.ids]))[0, -1]
        drawn_V = distribution(logits_V[None], SamplingSpec(temperature=0.5, top_k=5))[0]
        expected = [100 * float(each) for each in drawn_V.topk(5).values]
        shown = [numbers(text)[0] for text in section.locator(".next .number").all_inner_texts()[:5]]
        assert shown == pytest.approx(expected, rel=0.06, abs=0.6)
        section.locator(".next button").nth(2).click()
        visit.page.wait_for_function("() => location.hash.includes('extra=')")
        chosen = int(logits_V.topk(3).indices[2])
        assert f"extra={chosen}" in visit.page.url
        section.get_by_role("button", name="Write 16 tokens").click()
        section.locator(".written .token").nth(1).wait_for()
        written = section.locator(".written .token").count()
        assert written > 1
        section.locator(".written .strip .token").nth(1).click()
        other = visit.page.locator(".alternatives button:not(:disabled)").first
        other.click()
        visit.page.wait_for_function("() => location.hash.split('extra=')[1].split('%2C').length === 2")
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_selection_survives_a_reload_and_moves_by_keys(browser: Browser, served: Inside, subject: Subject):
    with Visit(browser, served.url, "/inside") as visit:
        page = visit.page
        line = page.get_by_label("Tokens of the prompt", exact=True)
        line.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "PageUp"):
            line.press(key)
        assert {"token=2", "head=1"} <= set(page.url.partition("#")[2].split("&"))
        before = page.url
        page.reload()
        page.locator(".chip.here").wait_for()
        assert page.url == before
        assert page.locator(".chip.here").inner_text() == subject.trace.pieces[2]
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        assert "token=3" in page.url
        page.get_by_role("textbox", name="Prompt", exact=True).fill("A list")
        page.get_by_role("button", name="Look inside").click()
        page.wait_for_function("() => location.search.includes('prompt=A+list')")
        page.wait_for_function("() => document.querySelectorAll('.chip').length < 8")
        page.go_back()
        page.wait_for_function("() => document.querySelectorAll('.chip').length > 8")
        assert visit.quiet, (visit.complaints, visit.foreign)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (800, "light"), (360, "light"), (360, "dark")])
def test_page_is_accessible_and_fits(browser: Browser, served: Inside, other_prompt: str, width: int, scheme: Any):
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with Visit(browser, served.url, f"/inside#beside=base&against={quote(other_prompt)}", **options) as visit:
        visit.page.locator(".chip.here").wait_for()
        for section in visit.page.locator(".panel").all():
            section.scroll_into_view_if_needed()
            visit.page.wait_for_timeout(100)
        panel(visit.page, "checks")
        assert visit.overflow <= 0
        actual = Axe().run(visit.page).response["violations"]
        serious = [(item["id"], item["nodes"][0]["html"][:160]) for item in actual if item["impact"] in SERIOUS]
        assert serious == []
        assert visit.quiet, (visit.complaints, visit.foreign)


@pytest.mark.parametrize("name", ["mistral", "mixtral", "gemma2", "recurrent", "convolutions"])
def test_page_shows_models_of_every_kind(browser: Browser, name: str, tmp_path: Path):
    loaded = convolving_only(tmp_path) if name == "convolutions" else family(name, tmp_path / name)
    inside = Inside(InsideModels.of(loaded, name), CHARACTERS)
    try:
        with Visit(browser, inside.url, "/inside") as visit:
            visit.page.locator(".chip.here").wait_for()
            for section in visit.page.locator(".panel:not(.lacking)").all():
                section.scroll_into_view_if_needed()
                visit.page.wait_for_selector(f'#{section.get_attribute("id")}[aria-busy="false"]', timeout=PATIENCE)
            notes = visit.page.locator(".panel.lacking").all_inner_texts()
            assert any("no experts" in note for note in notes) == (name != "mixtral")
            assert any("No layer of this model attends" in note for note in notes) == (name == "convolutions")
            if name == "recurrent":
                section = panel(visit.page, "attention")
                assert "Layer 2 does not attend: its mixer is ShortConvolution" in section.inner_text()
                visit.page.get_by_label("Tokens of the prompt", exact=True).press("ArrowDown")
                section.get_by_role("heading", name="Layer 1, head 0").wait_for()
            assert visit.page.locator(".panel .trouble:not([hidden])").count() == 0
            assert visit.quiet, (visit.complaints, visit.foreign)
    finally:
        inside.close()
