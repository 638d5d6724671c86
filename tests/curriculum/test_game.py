"""The guessing game of the page: its data is what the players guess, and playing it gives Shannon's own bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from underhood.curriculum.game import GUESSED, KNOWN, STEM, game, played
from underhood.curriculum.pages.site import page as page_of
from underhood.data.letters import ALPHABET
from underhood.evals.guessing import bounds, shares


def test_players_guess_every_hidden_letter_and_see_only_what_stands_before_it():
    seen: list[str] = []

    def by_frequency(text: str) -> np.ndarray:
        seen.append(text)
        return np.array([text.count(letter) for letter in ALPHABET], dtype=float)

    actual = played([("a name", "aab abba")], {"counting": by_frequency}, known=4)
    assert actual["players"] == ["counting"]
    assert actual["passages"] == [{"name": "a name", "known": "aab ", "hidden": "abba", "guesses": [[1, 3, 2, 1]]}]
    assert seen == ["aab ", "aab a", "aab ab", "aab abb"]


def test_game_on_the_page_is_whole_and_its_players_know_what_they_do():
    content = game()
    assert content["players"] == ["n-gram", "our model"]
    for passage in content["passages"]:
        assert len(passage["known"]) == KNOWN
        assert len(passage["hidden"]) == GUESSED
        assert set(passage["known"] + passage["hidden"]) <= set(ALPHABET)
        for guesses in passage["guesses"]:
            assert len(guesses) == GUESSED
            assert set(guesses) <= set(range(1, 28))
    every = np.array([[guess for item in content["passages"] for guess in item["guesses"][who]] for who in (0, 1)])
    assert (every.mean(axis=1) < 2.5).all()  # in any order it would be 14
    assert ((every == 1).mean(axis=1) > 0.5).all()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / f"{STEM}.html"
    target.write_text(page_of(STEM, []), encoding="utf-8")
    return target


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith("file://") else wrong.append(request.url))
    opened.goto(f"file://{file}")
    yield opened
    context.close()
    assert wrong == []


def numbers(page: Page, who: str) -> list[str]:
    return page.locator("#game tbody tr", has=page.locator("th", has_text=who)).locator("td").all_inner_texts()


def test_game_is_played_by_keyboard_and_counts_as_shannon_did(page: Page):
    passage = game()["passages"][0]
    first, second = passage["hidden"][:2]
    wrong = next(letter for letter in "qzx" if letter not in (first, second))
    box = page.get_by_label("Your guess")
    box.focus()
    assert passage["hidden"][:3] not in page.locator("#game .passage").inner_text()[KNOWN:]
    page.keyboard.type(wrong)
    expect(page.locator("#game .said")).to_have_text(f"{wrong}, no.")
    page.keyboard.type(wrong + first)  # what has been tried is not counted twice
    expect(page.locator("#game .said")).to_contain_text("you 2, n-gram ")
    page.keyboard.type(second)
    yours = [2, 1]
    low, high = bounds(shares(yours))
    assert numbers(page, "you") == ["1 of 2", "1.5", f"{low:.2f} to {high:.2f}"]
    for who, name in enumerate(game()["players"]):
        guesses = passage["guesses"][who][:2]
        low, high = bounds(shares(guesses))
        once = sum(guess == 1 for guess in guesses)
        assert numbers(page, name) == [f"{once} of 2", f"{np.mean(guesses):.1f}", f"{low:.2f} to {high:.2f}"]
    page.keyboard.type("7")
    expect(page.locator("#game .said")).to_contain_text("7 is not a letter")


def test_game_is_played_with_the_pointer_to_the_end_and_goes_on_with_another_passage(page: Page):
    hidden = game()["passages"][1]["hidden"]
    page.get_by_label("Passage").select_option("1")
    page.get_by_role("button", name="Give it away").click()
    assert page.locator("#game .passage .found").all_inner_texts() == [hidden[0]]
    for letter in hidden[1:]:
        page.get_by_role("button", name=re.compile(f"^{'space' if letter == ' ' else letter}$")).click()
    expect(page.locator("#game .said")).to_contain_text("That was the last letter")
    expect(page.get_by_label("Your guess")).to_be_disabled()
    assert numbers(page, "you")[0].endswith(f" of {len(hidden)}")
    page.get_by_label("Passage").select_option("0")
    expect(page.get_by_label("Your guess")).to_be_enabled()
    assert numbers(page, "our model")[0].endswith(f" of {len(hidden)}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_game_fits_a_phone(browser: Browser, file: Path, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"file://{file}#game")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_game_says_without_javascript_where_it_can_be_played(browser: Browser, file: Path):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"file://{file}")
    expect(opened.locator("#game .note")).to_contain_text("underhood play shannon")
    assert not opened.locator("#game .keyboard").is_visible()
    context.close()


def test_other_pages_have_no_game():
    assert 'id="game"' not in page_of("p1948_shannon", [])
