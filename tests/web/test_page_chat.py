"""The chat in a real browser: what a person does with it, by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from live_server import Live
from page_visit import GREEDY, Visit, answers, headless, page_server, said
from playwright.sync_api import Browser, expect

LIST = {"role": "user", "content": "What is a list?"}
ITEMS = {"role": "user", "content": "And items?"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with page_server(tmp_path_factory.mktemp("page")) as live:
        yield live


def greedy_answer(live: Live, model: str, *messages: Any, tokens: int = 24) -> str:
    """What the API answers, as the oracle of what the page shows."""
    done = live.openai().chat.completions.create(model=model, messages=[*messages], temperature=0, max_tokens=tokens)
    return done.choices[0].message.content or ""


def test_page_chat_answers_as_the_api_does_and_goes_on(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        visit.ask(LIST["content"])
        visit.ask(ITEMS["content"])
        first = greedy_answer(live, "small:dpo", LIST)
        assert said(visit) == [
            first,
            greedy_answer(live, "small:dpo", LIST, {"role": "assistant", "content": first}, ITEMS),
        ]
        assert visit.page.locator(".turn").count() == 2
        assert "tokens" in visit.page.locator(".answer .meta").first.inner_text()
        assert visit.quiet, (visit.complaints, visit.foreign)


def test_page_chat_sends_the_system_prompt_and_the_settings(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?max_tokens=8") as visit:
        page = visit.page
        sent: list[dict[str, Any]] = []
        page.on("request", lambda request: sent.append(request.post_data_json) if "/v1/" in request.url else None)
        page.get_by_role("button", name="Settings", exact=True).click()
        page.get_by_label("System prompt").fill("Be brief.")
        page.get_by_role("button", name="Likeliest").click()
        page.locator("#set-top_k").fill("7")
        page.locator("#set-seed").fill("5")
        page.get_by_label("Stop at").fill("zzz")
        visit.ask("Hello")
        wanted = {"temperature": 0, "top_k": 7, "seed": 5, "stop": ["zzz"], "max_tokens": 8, "stream": True}
        assert wanted.items() <= sent[0].items()
        assert sent[0]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
        ]
        assert {"temperature=0", "top_k=7", "seed=5", "stop=zzz"} <= set(page.url.partition("?")[2].split("&"))
        page.reload()
        page.get_by_role("button", name="Settings", exact=True).click()
        expect(page.locator("#set-top_k")).to_have_value("7")
        expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
        assert visit.quiet


def test_page_chat_settings_out_of_range_are_marked_and_not_sent(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url) as visit:
        visit.page.get_by_role("button", name="Settings", exact=True).click()
        field = visit.page.locator("#set-top_p")
        field.fill("7")
        field.blur()
        expect(field).to_have_attribute("aria-invalid", "true")
        assert "top_p" not in visit.page.url
        field.fill("0.7")
        field.blur()
        expect(field).to_have_attribute("aria-invalid", "false")
        assert "top_p=0.7" in visit.page.url


def test_page_chat_stops_an_answer_and_keeps_what_was_written(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?temperature=0&max_tokens=400") as visit:
        visit.page.get_by_label("Your message").fill("Go on for long")
        visit.page.keyboard.press("Enter")
        visit.page.locator('.answer[aria-busy="true"] .meta', has_text="tokens").wait_for()
        visit.page.keyboard.press("Escape")
        visit.settled()
        assert "stopped" in visit.page.locator(".answer .meta").inner_text()
        [answer] = answers(visit)
        assert answer["finish"] == "stopped"
        assert 0 < len(answer["pieces"]) < 400
        assert visit.quiet


def test_page_chat_asks_again_and_leafs_through_the_answers(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/?max_tokens=12&temperature=2") as visit:
        page = visit.page
        visit.ask("What is a list?")
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator(".variants .number")).to_have_text("2/2")
        first, second = said(visit)
        assert first != second
        page.get_by_role("button", name="Answer before").click()
        expect(page.locator(".variants .number")).to_have_text("1/2")
        visit.ask("And then?")  # hangs on the first answer
        assert page.locator(".turn").count() == 2
        page.get_by_role("button", name="Next answer").first.click()
        expect(page.locator(".turn")).to_have_count(1)
        page.get_by_role("button", name="Answer before").click()
        expect(page.locator(".turn")).to_have_count(2)
        assert visit.quiet


def test_page_chat_editing_a_question_makes_a_branch(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask("What is a list?")
        visit.ask("More")
        page.get_by_role("button", name="Edit the question").first.click()
        page.get_by_label("Your question").fill("What is an item?")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".turn")).to_have_count(1)
        visit.settled()
        assert greedy_answer(live, "small:dpo", {"role": "user", "content": "What is an item?"}) in said(visit)
        page.get_by_role("button", name="Version before").click()
        expect(page.locator(".turn")).to_have_count(2)
        expect(page.locator(".question-text").first).to_have_text("What is a list?")


def test_page_chat_compares_two_models_each_with_its_own_history(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY + "&model=small:dpo&model=small:sft") as visit:
        visit.ask(LIST["content"])
        visit.ask(ITEMS["content"])
        texts = said(visit)
        for model, (item, two) in {"small:dpo": texts[::2], "small:sft": texts[1::2]}.items():
            assert item == greedy_answer(live, model, LIST)
            assert two == greedy_answer(live, model, LIST, {"role": "assistant", "content": item}, ITEMS)
        lanes = visit.page.locator(".turn").first.locator(".answer")
        left, right = lanes.nth(0).bounding_box(), lanes.nth(1).bounding_box()
        assert left is not None
        assert right is not None
        assert right["x"] > left["x"] + left["width"] - 1
        assert right["y"] == left["y"]
        visit.page.get_by_role("button", name="End the comparison").click()
        expect(visit.page.locator(".turn").first.locator(".answer")).to_have_count(1)
        assert "model=" not in visit.page.url  # the default alone
        assert visit.quiet


def test_page_chat_base_model_continues_the_text(browser: Browser, live: Live) -> None:
    def oracle(prompt: str) -> str:
        done = live.openai().completions.create(model="small:base", prompt=prompt, temperature=0, max_tokens=24)
        return done.choices[0].text

    with Visit(browser, live.url, GREEDY + "&model=small:base") as visit:
        visit.ask("The list is")
        [first] = said(visit)
        assert first == oracle("The list is")
        visit.ask(" and")
        assert said(visit)[1] == oracle("The list is" + first + " and")


def test_page_chat_token_view_shows_the_api_s_probabilities(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask(LIST["content"])
        page.get_by_role("button", name="Tokens", exact=True).click()
        done = live.openai().chat.completions.create(
            model="small:dpo", messages=[LIST], temperature=0, max_tokens=24, logprobs=True, top_logprobs=5
        )
        assert done.choices[0].logprobs
        wanted = done.choices[0].logprobs.content or []
        expect(page.locator(".answer .strip .token")).to_have_count(len(wanted))
        page.locator(".strip").focus()
        read = page.locator(".token-read")
        for token in wanted[:5]:
            assert bytes(token.bytes or []).hex(" ") in read.inner_text()
            assert "the likeliest" in read.inner_text()  # greedy
            [bits] = re.findall(r"([\d.]+) bits", read.inner_text())
            assert float(bits) == pytest.approx(-token.logprob / 0.6931, abs=0.06)
            page.keyboard.press("ArrowRight")
        assert visit.quiet


def test_page_chat_goes_on_from_another_token(browser: Browser, live: Live) -> None:
    """The same tokens, then the chosen one, then what the model writes behind exactly these tokens."""
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        visit.ask(LIST["content"])
        page.get_by_role("button", name="Tokens", exact=True).click()
        page.locator(".strip").focus()
        for key in ("ArrowRight", "ArrowRight", "Enter"):  # the third token's alternatives
            page.keyboard.press(key)
        menu = page.get_by_role("dialog")
        expect(menu.locator("li")).to_have_count(10)
        expect(menu.locator("button:disabled")).to_have_count(1)  # the token that is there
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator(".variants .number")).to_have_text("2/2")
        before, after = answers(visit)
        assert after["prefix"] == 3
        assert [piece[0] for piece in after["pieces"][:2]] == [piece[0] for piece in before["pieces"][:2]]
        assert after["pieces"][2][0] != before["pieces"][2][0]
        with live.http() as client:
            prompt = client.post("/tokenize", json={"model": "small:dpo", "messages": [LIST]}).json()["tokens"]
        tokenizer = live.registry.find("small:dpo").loaded.tokenizer
        by_bytes = {tokenizer.decode_bytes([id]): id for id in range(tokenizer.vocab_size)}
        start = [by_bytes[bytes.fromhex(piece[0])] for piece in after["pieces"][:3]]
        done = live.openai().completions.create(
            model="small:dpo", prompt=[*prompt, *start], temperature=0, max_tokens=24, logprobs=0
        )
        assert done.choices[0].logprobs
        wanted = done.choices[0].logprobs.token_logprobs or []
        assert [piece[1] for piece in after["pieces"][3:]] == pytest.approx(wanted, abs=1e-4)
        assert visit.quiet


def test_page_chat_shows_what_the_server_refuses_and_recovers(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        visit.ask("list " * 1500)
        trouble = visit.page.locator(".answer .trouble")
        expect(trouble).to_contain_text("Try again")
        assert len(trouble.inner_text()) > 30
        visit.page.get_by_role("button", name="New conversation").click()
        visit.page.locator(".welcome").wait_for()
        visit.ask("What is a list?")
        assert visit.page.locator(".answer .trouble").count() == 0
        # The browser itself notes a refused request; nothing else may be complained of.
        assert all("400" in complaint for complaint in visit.complaints), visit.complaints


def test_page_chat_works_by_keyboard_alone(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, GREEDY) as visit:
        page = visit.page
        expect(page.get_by_label("Your message")).to_be_focused()
        page.keyboard.type("What is a list?")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Two lines")
        page.keyboard.press("Enter")
        visit.settled()
        expect(page.locator(".question-text")).to_have_text("What is a list?\nTwo lines", use_inner_text=True)
        page.get_by_label("Your message").blur()
        for key, effect in (
            ("t", ".answer.as-tokens .strip"),
            ("s", ".settings-side:not([hidden])"),
            ("Escape", ".settings-side[hidden]"),
            ("e", ".question .editor"),
            ("Escape", ".question-text"),
            ("r", ".variants"),
            ("?", "dialog[open]"),
            ("Escape", ".chat-place"),
        ):
            page.keyboard.press(key)
            page.locator(effect).first.wait_for(state="attached")
            if key == "r":
                visit.settled()
        page.keyboard.press("/")
        expect(page.get_by_label("Search the conversations")).to_be_focused()
        page.get_by_label("Search the conversations").blur()
        page.keyboard.press("g")
        page.keyboard.press("r")
        expect(page).to_have_url(re.compile("/runs$"))
        page.keyboard.press("g")
        page.keyboard.press("c")
        expect(page.get_by_label("Your message")).to_be_focused()
        assert visit.quiet
