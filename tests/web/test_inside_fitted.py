"""The page's panels of what is trained first, and of steering, in a browser: from a server that trains when a button is
pressed, and from a file that was written with everything trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from inside_visit import Inside, numbers, panel, reading, wait_for_text
from page_visit import Visit, headless
from playwright.sync_api import Browser, Locator, Page
from trained_model import trained, training_texts

from underhood.infer.load import LoadedModel
from underhood.inspect import default_training
from underhood.inspect.lens import logit_lens
from underhood.inspect.sae_examples import FeatureExamples
from underhood.inspect.steering import steer, steering_vector
from underhood.inspect.tuned_lens import tuned_lens
from underhood.web.inside.file import LIMIT, write_file
from underhood.web.inside.file_extras import Extras
from underhood.web.inside.fit_kinds import TrainedFeatures, TrainedLens, TrainedProbes
from underhood.web.inside.fits import with_own_modules
from underhood.web.inside.subjects import InsideModels, Subject

PROMPT = "The table is mutable and holds 3 items of a list."
TOWARD, AWAY = "The table is mutable", "The tuple is immutable"
LAYER = 2
HASH = f"#layer={LAYER}"
SERIOUS = ("serious", "critical")


@pytest.fixture(autouse=True, scope="module")
def _short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_training, "AUTOENCODER_STEPS", 150)
        patch.setattr(default_training, "LENS_STEPS", 40)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def oracle(loaded: LoadedModel) -> LoadedModel:
    """The same model in other modules: hooks of the server, which runs in a thread, change nothing here."""
    return with_own_modules(loaded)


@pytest.fixture(scope="module")
def subject(oracle: LoadedModel) -> Subject:
    return InsideModels.of(oracle, "small").subject("small", PROMPT)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("text") / "notes.txt"
    file.write_text("\n".join(training_texts()), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def served(loaded: LoadedModel, text: str) -> Iterator[Inside]:
    models = InsideModels.of(loaded, "small")
    models.fits.text = text
    inside = Inside(models, PROMPT)
    yield inside
    inside.close()


@pytest.fixture(scope="module")
def from_file(loaded: LoadedModel, text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[InsideModels, Path]:
    models = InsideModels.of(loaded, "small")
    models.fits.text = text
    path = tmp_path_factory.mktemp("file") / "inside.html"
    extras = Extras(trained=True, layer=LAYER, toward=TOWARD, away=AWAY, strength=3.0)
    assert write_file(path, models, PROMPT, extras=extras) <= LIMIT
    return models, path


@pytest.fixture(scope="module", params=["served", "file"])
def visit(request: pytest.FixtureRequest, browser: Browser) -> Iterator[tuple[Visit, InsideModels]]:
    """The page with everything trained: by the panels' buttons, or in the file."""
    if request.param == "file":
        models, path = request.getfixturevalue("from_file")
        with Visit(browser, path.as_uri(), HASH) as opened:
            opened.page.locator(".chip.here").wait_for()
            yield opened, models
        return
    served: Inside = request.getfixturevalue("served")
    with Visit(browser, served.url, f"/inside{HASH}&strength=3&toward={TOWARD}&away={AWAY}") as opened:
        opened.page.locator(".chip.here").wait_for()
        for name in ("tuned", "features", "probes"):
            train(opened.page, name)
        yield opened, served.models


def train(page: Page, name: str) -> None:
    section = panel(page, name)
    section.get_by_role("button", name=re.compile("^Train the")).click()
    section.locator(".fitting").wait_for(state="hidden")


def value(models: InsideModels, kind: str, variant: str = "") -> Any:
    return models.fits.value("small", models.model("small"), kind, variant)


def settled(page: Page, name: str) -> Locator:
    section = panel(page, name)
    section.locator(".heat").first.wait_for()
    return section


def test_tuned_lens_reads_what_the_python_view_does(
    visit: tuple[Visit, InsideModels], oracle: LoadedModel, subject: Subject
):
    opened, models = visit
    fitted: TrainedLens = value(models, "tuned")
    lens = tuned_lens(oracle, subject.trace, fitted.lens)
    plain = logit_lens(oracle, subject.trace)
    section = settled(opened.page, "tuned")
    last = len(subject.ids) - 1
    words = reading(section)
    assert words.startswith(f"Layer {LAYER}, after {subject.trace.pieces[last]}:")
    shown = [float(share) for share in re.findall(r"([\d.]+)\s%", words)]
    assert shown == pytest.approx([100 * float(share) for share in lens.probabilities[LAYER, last]], rel=0.06, abs=0.06)
    ranks = numbers(section.locator(".read").first.inner_text().partition("at rank")[2])
    assert ranks == [int(lens.ranks[LAYER, last]), int(plain.ranks[LAYER, last])]
    nats = numbers(section.locator(".read").nth(1).inner_text())[1:]
    assert nats == pytest.approx([float(fitted.tuned[LAYER]), float(fitted.plain[LAYER])], abs=0.006)


def test_features_show_their_strongest_examples(
    visit: tuple[Visit, InsideModels], oracle: LoadedModel, subject: Subject
):
    opened, models = visit
    fitted: TrainedFeatures = value(models, "features", str(LAYER))
    strengths_Tk, chosen_Tk = fitted.autoencoder.features(subject.trace[f"residual.{LAYER}"])
    section = settled(opened.page, "features")
    own = [(int(n), float(s)) for n, s in zip(chosen_Tk[-1], strengths_Tk[-1], strict=True) if s > 0]
    for row, (number, strength) in enumerate(own[:2]):
        if row:
            box = section.locator(".heat")
            box.focus()
            box.press("ArrowDown")
            opened.page.wait_for_function(f"() => location.hash.includes('feature={number}')")
        wait_for_text(opened.page, "#panel-features .heat-read", f"Feature {number} at")
        assert numbers(reading(section))[1] == pytest.approx(strength, abs=0.006)
        expected = fitted.corpus.examples(oracle, number, count=8, context=10)
        wait_for_text(opened.page, "#panel-features h3", f"Feature {number}, where")
        assert examples_in(section) == [
            (each.before, each.token, each.after, pytest.approx(each.strength, abs=0.051)) for each in expected.examples
        ]
        assert isinstance(expected, FeatureExamples)
    assert numbers(section.locator(".formula").inner_text())[0] == len(fitted.autoencoder.decoder)


def examples_in(section: Locator) -> list[tuple[str, str, str, float]]:
    listed = []
    for item in section.locator(".examples li").all():
        pieces = item.locator(".example > *").evaluate_all("each => each.map((one) => [one.tagName, one.textContent])")
        at = next(index for index, (tag, _) in enumerate(pieces) if tag == "B")
        texts = [words for _, words in pieces]
        strength = numbers(item.locator(".number").inner_text())[0]
        listed.append(("".join(texts[:at]), texts[at], "".join(texts[at + 1 :]), strength))
    return listed


def test_steered_text_is_beside_the_plain_one(visit: tuple[Visit, InsideModels], oracle: LoadedModel, subject: Subject):
    opened, _ = visit
    vector = steering_vector(oracle, TOWARD, AWAY, layer=LAYER)
    section = settled(opened.page, "steering")
    for strength in (3.0, -2.0) if opened.url.startswith("http") else (3.0,):
        if strength < 0:
            section.get_by_label("Strength").fill(str(strength))
            opened.page.wait_for_function("() => location.hash.includes('strength=-2')")
            panel(opened.page, "steering")
        expected = steer(oracle, subject.ids, vector, strengths=[0.0, strength], max_tokens=24)
        shown = section.locator(".continuation")
        wait_for_text(opened.page, "#panel-steering .formula", "a vector of length")
        opened.page.wait_for_function(
            "words => document.querySelectorAll('#panel-steering .continuation')[1].textContent === words",
            arg=expected.texts[1],
        )
        assert shown.first.text_content() == (expected.texts[0] or "It ends here.")
        stream_D = subject.trace[f"residual.{LAYER}"][-1]
        cosine = vector.values @ stream_D / (vector.norm * stream_D.norm())
        assert numbers(reading(section))[-1] == pytest.approx(float(cosine), abs=0.011)


def test_probes_show_accuracy_with_its_controls(visit: tuple[Visit, InsideModels], subject: Subject):
    opened, models = visit
    fitted: TrainedProbes = value(models, "probes", "previous")
    section = settled(opened.page, "probes")
    result = fitted.results[LAYER]
    expected = [result.accuracy, result.control, result.untrained or 0.0, result.majority]
    words = section.locator(".read").inner_text()
    shares = [float(share) for share in re.findall(r"([\d.]+)\s%", words)]
    assert words.startswith(f"layer {LAYER}: probe")
    assert shares == pytest.approx([100 * share for share in expected], abs=0.6)
    stream = subject.trace[f"residual.{LAYER}"]
    answer = int(result.probe.scores(stream)[-1].argmax())
    assert f": {fitted.task.classes[answer]} (" in reading(section)


def test_pages_with_everything_trained_are_quiet(visit: tuple[Visit, InsideModels]):
    opened, _ = visit
    for name in ("tuned", "features", "steering", "probes"):
        settled(opened.page, name)
    assert opened.quiet, (opened.complaints, opened.foreign)


def test_selection_of_the_panels_is_kept_in_the_address(browser: Browser, served: Inside, oracle: LoadedModel):
    served.models.fits.make("small", oracle, "features", str(LAYER))
    with Visit(browser, served.url, f"/inside{HASH}&feature=3&task=word&token=4&strength=1.5") as opened:
        section = settled(opened.page, "features")
        wait_for_text(opened.page, "#panel-features h3", "Feature 3")
        assert section.get_by_label("Feature", exact=True).input_value() == "3"
        assert panel(opened.page, "probes").get_by_label("Question").input_value() == "word"
        steering = panel(opened.page, "steering")
        assert "No texts yet" in steering.inner_text()
        steering.get_by_label("Text to lead toward").fill(TOWARD)
        steering.get_by_label("Text to lead away from").fill(AWAY)
        steering.get_by_role("button", name="Steer").click()
        steering.locator(".heat").wait_for()
        assert steering.get_by_label("Strength").input_value() == "1.5"
        assert {"feature=3", "task=word", "token=4"} <= set(opened.page.url.partition("#")[2].split("&"))
        assert opened.quiet, (opened.complaints, opened.foreign)


def test_training_can_be_stopped_and_says_what_it_costs(
    browser: Browser, served: Inside, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(default_training, "AUTOENCODER_STEPS", 10**6)
    with Visit(browser, served.url, "/inside#layer=0") as opened:
        section = panel(opened.page, "features")
        wait_for_text(opened.page, "#panel-features .fitting", "must be trained first")
        assert re.search(r"on [\d,]+ characters of .*, in about [\d.]+\s(s|min)", section.inner_text())
        section.get_by_role("button", name="Train the sparse autoencoder").click()
        opened.page.wait_for_function("() => document.querySelector('#panel-features progress').value > 0")
        section.get_by_role("button", name="Stop").click()
        wait_for_text(opened.page, "#panel-features .fitting", "It was stopped.")
        assert section.locator("progress").is_hidden()
        assert opened.quiet, (opened.complaints, opened.foreign)


def test_panels_say_what_to_give_where_no_text_is_known(browser: Browser, loaded: LoadedModel, tmp_path: Path):
    inside = Inside(InsideModels.of(loaded, "small"), PROMPT)
    try:
        with Visit(browser, inside.url, "/inside") as opened:
            for name in ("tuned", "features", "probes"):
                section = panel(opened.page, name)
                wait_for_text(opened.page, f"#panel-{name} .fitting", "--text FILE")
                assert section.get_by_role("button", name=re.compile("^Train the")).count() == 0
            assert opened.quiet, (opened.complaints, opened.foreign)
    finally:
        inside.close()
    path = tmp_path / "inside.html"
    write_file(path, InsideModels.of(loaded, "small"), PROMPT)
    with Visit(browser, path.as_uri(), "") as opened:
        for name, words in (("tuned", "--trained FOLDER"), ("steering", "--toward TEXT")):
            panel(opened.page, name)
            wait_for_text(opened.page, f"#panel-{name} .panel-note", words)
        assert opened.quiet, (opened.complaints, opened.foreign)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
def test_trained_panels_are_accessible_and_fit(
    browser: Browser, from_file: tuple[InsideModels, Path], width: int, scheme: Any
):
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with Visit(browser, from_file[1].as_uri(), HASH, **options) as opened:
        opened.page.locator(".chip.here").wait_for()
        for name in ("tuned", "features", "steering", "probes"):
            settled(opened.page, name)
        assert opened.overflow <= 0
        actual = Axe().run(opened.page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:160]) for each in actual if each["impact"] in SERIOUS] == []
