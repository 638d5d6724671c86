"""Calls read out of text that comes in chunks, and what a model may write."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import tiny_tokenizer

from underhood.web.requests import ChatRequest
from underhood.web.tools import CLOSE, OPEN, Argued, Called, CallReader, Said, Tools, with_tools

SCHEMA = {"type": "object", "properties": {"x": {"enum": [1, 22]}}, "required": ["x"], "additionalProperties": False}
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "g_2"}},
    ],
}
CALL = f'{OPEN}\n{{"name": "f", "arguments": {{"x": 22}}}}\n{CLOSE}'


def tools_of(**more) -> Tools:
    tools = Tools.of(ChatRequest(**BODY | more))
    assert tools is not None
    return tools


def read(tools: Tools | None, text: str, cuts: list[int]) -> tuple[str, list[tuple[str, str]]]:
    """All that a reader makes of a text cut at these places: plain text, and calls."""
    reader = CallReader(tools)
    places = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    events = [event for start, end in itertools.pairwise(places) for event in reader.push(text[start:end])] + [
        *reader.finish()
    ]
    output = "".join(event.text for event in events if isinstance(event, Said))
    names = [event.name for event in events if isinstance(event, Called)]
    arguments = [
        "".join(event.text for event in events if isinstance(event, Argued) and event.index == index)
        for index in range(len(names))
    ]
    return output, list(zip(names, arguments, strict=True))


@given(cuts=st.lists(st.integers(0, 400), max_size=60))
@pytest.mark.parametrize(
    ("text", "answer", "calls"),
    [
        ("No call at all: < <tool <tool_cal", "No call at all: < <tool <tool_cal", []),
        (CALL, "", [("f", '{"x": 22}')]),
        (f"Let me see.\n\n{CALL}", "Let me see.", [("f", '{"x": 22}')]),
        (f"{CALL}\n{CALL}", "", [("f", '{"x": 22}')] * 2),
        (f'{OPEN}{{ "name":"g_2","arguments":{{}} }}{CLOSE} done', "done", [("g_2", "{}")]),
        (
            f'{OPEN}{{"name": "f", "arguments": {{"x": "a \\"}} {{ {CLOSE} ü", "y": [{{}}]}}}}{CLOSE}',
            "",
            [("f", f'{{"x": "a \\"}} {{ {CLOSE} ü", "y": [{{}}]}}')],
        ),
        (f'{OPEN}{{"name": "h", "arguments": {{}}}}', f'{OPEN}{{"name": "h", "arguments": {{}}}}', []),
        (f"{OPEN} I like this mark", f"{OPEN} I like this mark", []),
        (f'{OPEN}{{"name": "f", "arguments": {{"x"', "", [("f", '{"x"')]),
    ],
)
def test_calls_are_the_same_however_the_text_is_cut(text: str, answer: str, calls: list, cuts: list[int]):
    assert read(tools_of(), text, cuts) == (answer, calls)


@given(cuts=st.lists(st.integers(0, 100), max_size=20))
def test_forced_calls_are_read_from_their_middle(cuts: list[int]):
    named = tools_of(tool_choice={"type": "function", "function": {"name": "f"}})
    assert named.opening + '{"x": 1}' == f'{OPEN}\n{{"name": "f", "arguments": {{"x": 1}}'
    assert read(named, '{"x": 1}', cuts) == ("", [("f", '{"x": 1}')])
    required = tools_of(tool_choice="required")
    assert read(required, '{"name": "g_2", "arguments": {}}', cuts) == ("", [("g_2", "{}")])


def test_without_tools_marks_are_text():
    assert read(None, CALL, [3, 9]) == (CALL, [])
    assert read(tools_of(tool_choice="none"), CALL, [5]) == (CALL, [])


def admits(tools: Tools, text: str) -> bool:
    """Whether the grammar admits the text as a whole."""
    grammar, tokenizer = tools.grammar(), tiny_tokenizer()
    assert grammar is not None
    matcher = grammar.matcher(tokenizer)
    import torch

    for id in tokenizer.encode(text):
        scores = matcher.mask(torch.zeros(tokenizer.vocab_size), ())
        if matcher.stuck or scores[id] < 0:
            return False
        matcher.push(id)
    return matcher.accepts


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Just words, with < and <tool and {braces}.\nAnd more.", True),
        ("", True),
        (CALL, True),
        (f"Words first.\n{CALL}", True),
        (f"{CALL}\n{CALL}", True),
        (f"{OPEN} words", False),
        (CALL.replace("22", "2"), False),
        (CALL.replace('"f"', '"h"'), False),
        (f"{CALL} words after", True),
        (CALL.removesuffix(CLOSE), False),
    ],
)
def test_automatic_choice_admits_text_and_calls_that_fit(text: str, good: bool):
    assert admits(tools_of(), text) == good


def test_one_call_at_most_without_parallel_calls():
    assert not admits(tools_of(parallel_tool_calls=False), f"{CALL}\n{CALL}")
    assert not admits(tools_of(parallel_tool_calls=False), f"{CALL} words")
    assert admits(tools_of(parallel_tool_calls=False), CALL)


def test_conversation_for_a_template_without_functions_holds_all_in_words():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    shown = with_tools(messages, tools_of(), native=False)
    assert [item["role"] for item in shown] == ["system", "user", "assistant", "user"]
    assert shown[0]["content"].startswith("Be brief.\n\n")
    described = [json.loads(line) for line in shown[0]["content"].splitlines() if line.startswith("{")]
    assert [item["name"] for item in described] == ["f", "g_2"]
    assert described[0]["parameters"] == SCHEMA
    assert shown[2]["content"] == f'{OPEN}\n{{"name": "f", "arguments": {{"x": 1}}}}\n{CLOSE}'
    assert "42" in shown[3]["content"]
    native = with_tools(messages, tools_of(), native=True)
    assert native[2]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert native[3] == messages[3]
