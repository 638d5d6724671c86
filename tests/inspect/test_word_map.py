"""The map of word vectors: who is beside whom, and the page in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from needs import chromium
from underhood.cli.main import main
from underhood.inspect.word_map.page import map_data, word_map
from underhood.models.word_vectors import WordVectors


def grouped() -> WordVectors:
    """Four groups of ten words, the groups' directions at right angles."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(8)[:4] * 5, 10, axis=0)
    words = tuple(f"{group}{number}" for group in ("red", "blue", "cat", "dog") for number in range(10))
    return WordVectors(words, (centres + rng.normal(0, 0.5, centres.shape)).astype(np.float32))


def test_words_of_a_group_lie_together_and_are_neighbours():
    data = map_data(grouped(), words=40)
    places = np.array(data["places"])
    assert np.abs(places).max() == pytest.approx(1.0)
    for id, word in enumerate(data["words"]):
        away = np.linalg.norm(places - places[id], axis=1)
        beside = [data["words"][other] for other in np.argsort(away)[1:4]]
        assert all(other.rstrip("0123456789") == word.rstrip("0123456789") for other in beside), word
        assert data["near"][id] == [
            [other, pytest.approx(cosine, abs=6e-4)] for other, cosine in grouped().nearest(word, 8)
        ]


def test_command_writes_the_page_and_names_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    grouped().save(tmp_path / "words")
    command = ["embed", "map", str(tmp_path / "words"), str(tmp_path / "map.html")]
    assert main([*command, "--mapped", "5"]) == 2
    assert "12 words" in capsys.readouterr().err
    assert not (tmp_path / "map.html").exists()
    assert main(command) == 0
    assert "red3" in (tmp_path / "map.html").read_text(encoding="utf-8")
    assert main(command) == 2
    assert "--restart" in capsys.readouterr().err


@pytest.mark.slow
def test_page_finds_words_and_moves_by_keys(tmp_path: Path):
    file = tmp_path / "map.html"
    file.write_text(word_map(grouped(), title="Words"), encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 360, "height": 740})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        page.fill("#word", "cat4")
        assert page.inner_text(".chosen") == "cat4"
        first = page.inner_text(".near li:first-child button")
        assert first.startswith("cat")
        page.click(".near li:first-child button")
        assert page.inner_text(".chosen") == first
        page.focus(".frame")
        seen = {first}
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
            seen.add(page.inner_text(".chosen"))
        assert len(seen) > 1
        shown = int(page.get_attribute(".frame", "data-labels") or 0)
        for _ in range(6):
            page.keyboard.press("+")
        near = int(page.get_attribute(".frame", "data-labels") or 0)
        assert 0 < near != shown
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert errors == []
        browser.close()
