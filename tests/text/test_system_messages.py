"""System messages anywhere in a conversation, in every style of chat template."""

from __future__ import annotations

import json
from typing import Any

import pytest
from published_templates import STYLES, tokenizer_of

from underhood.core.errors import UserError
from underhood.text.bpe import train_bpe
from underhood.text.chat import CHATML
from underhood.text.hf_chat_template import ForeignTemplate
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.system_messages import render_conversation


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


FIRST, SECOND, INNER, LAST = (turn("system", text) for text in ("Be brief.", "Be kind.", "Now rhyme.", "No numbers."))
ASK, ANSWER, AGAIN = turn("user", "What is red?"), turn("assistant", "A colour."), turn("user", "And blue?")
MERGED = turn("system", "Be brief.\n\nBe kind.")
CONVERSATIONS = {
    "two at the start": ([FIRST, SECOND, ASK], [MERGED, ASK], [turn("user", "Be brief.\n\nBe kind.\n\nWhat is red?")]),
    "inner": (
        [FIRST, ASK, ANSWER, INNER, AGAIN],
        [FIRST, ASK, ANSWER, turn("user", "Now rhyme.\n\nAnd blue?")],
        [turn("user", "Be brief.\n\nWhat is red?"), ANSWER, turn("user", "Now rhyme.\n\nAnd blue?")],
    ),
    "last": (
        [ASK, ANSWER, AGAIN, LAST],
        [ASK, ANSWER, turn("user", "And blue?\n\nNo numbers.")],
        [ASK, ANSWER, turn("user", "And blue?\n\nNo numbers.")],
    ),
    "before an answer": (
        [ASK, INNER, ANSWER, AGAIN],
        [turn("user", "What is red?\n\nNow rhyme."), ANSWER, AGAIN],
        [turn("user", "What is red?\n\nNow rhyme."), ANSWER, AGAIN],
    ),
    "alone": ([FIRST], None, [turn("user", "Be brief.")]),
    "behind an answer": (
        [ASK, ANSWER, INNER],
        [ASK, ANSWER, turn("user", "Now rhyme.")],
        [ASK, ANSWER, turn("user", "Now rhyme.")],
    ),
}
"""Each, with the forms for templates with a system message at the start only, and with none."""


def of_style(style: str) -> tuple[ForeignTemplate, HuggingFaceTokenizer]:
    tokenizer = HuggingFaceTokenizer(json.loads(tokenizer_of(style).to_str()))
    return ForeignTemplate(source=STYLES[style].source, variables=STYLES[style].variables), tokenizer


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_template_shows_every_system_message(style: str, name: str):
    template, tokenizer = of_style(style)
    messages, *_ = CONVERSATIONS[name]
    shown = tokenizer.decode(render_conversation(template, tokenizer, messages, add_generation_prompt=True).ids)
    places = [shown.index(message["content"]) for message in messages]
    if style != "mistral":  # whose template puts the instruction into the last turn
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("style", "form"),
    [("qwen2", 0), ("llama3", 0), ("phi3", 0), ("gemma", 2), ("mixtral", 2)],
)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_template_is_given_the_conversation_as_near_to_the_original_as_it_takes(style: str, form: int, name: str):
    template, tokenizer = of_style(style)
    forms = CONVERSATIONS[name]
    if (style, name) == ("gemma", "last"):
        form = 0  # its template looks at the first message's role only, and shows a later system turn as one
    expected = template.render(tokenizer, forms[form], add_generation_prompt=True)
    assert render_conversation(template, tokenizer, forms[0], add_generation_prompt=True) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_our_template_has_one_system_message_at_the_start(name: str):
    tokenizer = train_bpe(["What is a list? Be brief and kind.\n\n"], vocab_size=300)
    messages, form, _ = CONVERSATIONS[name]
    expected = CHATML.render(tokenizer, form or messages)
    assert render_conversation(CHATML, tokenizer, messages) == expected


def test_template_that_wants_turns_to_alternate_gets_them():
    template, tokenizer = of_style("gemma")
    twice = [FIRST, ASK, AGAIN, ANSWER, ANSWER, AGAIN]
    once = [turn("user", "Be brief.\n\nWhat is red?\n\nAnd blue?"), turn("assistant", "A colour.\n\nA colour."), AGAIN]
    assert render_conversation(template, tokenizer, twice) == template.render(tokenizer, once)


def test_refusal_of_every_form_is_about_the_first():
    template, tokenizer = of_style("gemma")
    with pytest.raises(UserError, match="There is no system role"):
        render_conversation(template, tokenizer, [FIRST, ASK, turn("tool", "1"), turn("tool", "2")])
