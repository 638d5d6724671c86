"""One request for many conversations gives what one request for every beginning of every conversation gives.

`by_prefixes` is that slow way, written plainly: the whole is rendered, and then everything before each answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.published_templates import CONVERSATION, STYLES, tokenizer_of
from text.test_hf_chat_template import CALLS, TOOLS, template
from tiny_gguf import metadata_of
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.infer.tokenizer_files import load_gguf_tokenizer
from underhood.text import template_sandbox
from underhood.text.answer_spans import EncodedText, common_prefix, encode_parts, split_special
from underhood.text.bpe import train_bpe
from underhood.text.chat import CHATML, Rendered
from underhood.text.hf_chat_template import ForeignTemplate, _hide_message, _hider
from underhood.text.huggingface import HuggingFaceTokenizer
from underhood.text.template_sandbox import RenderLimits, render_template

MARK = "\ufdd0"
Messages = Sequence[dict[str, Any]]


def by_prefixes(
    rendering: ForeignTemplate, tokenizer: Tokenizer, messages: Messages, tools: Any = None, *, prompt: bool = False
) -> Rendered:
    """The ids and mask of a conversation, every beginning rendered and encoded by itself."""
    hide = _hider(tuple(tokenizer.special), MARK)
    hidden = [_hide_message(message, hide) for message in messages]

    def text_of(some: Messages, prompt: bool) -> Any:
        given = {"messages": [*some], "tools": tools, "add_generation_prompt": prompt}
        return render_template(rendering.source, {**rendering.variables, **given})

    def ids_of(text: str) -> list[int]:
        return encode_parts(tokenizer, split_special(text, tokenizer.special, MARK))

    whole = text_of(hidden, prompt)
    text, ids = whole.text, ids_of(whole.text)
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    starts = []
    for number in answers if not whole.spans else []:
        try:
            before = text_of(hidden[:number], True).text if number else None
        except UserError:
            before = None
        if before is None or not text.startswith(before):
            content = hidden[number]["content"]
            marked = [*hidden[:number], {**hidden[number], "content": MARK + content}, *hidden[number + 1 :]]
            before = text[: common_prefix(text_of(marked, prompt).text, text)]
        starts.append(len(before))
    names = [name for name, id in tokenizer.special.items() if id in rendering.stop_ids(tokenizer)]
    ends = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    spans = whole.spans
    for index, start in enumerate(starts):
        limit = starts[index + 1] if index + 1 < len(starts) else len(text)
        if match := re.compile(ends).search(text, start, limit):
            spans.append((start, match.end()))
        else:
            so_far = text_of(hidden[: answers[index] + 1], False).text
            spans.append((start, max(start, len(text[: min(common_prefix(so_far, text), limit)].rstrip()))))
    mask = [False] * len(ids)
    for start, end in spans:
        first, upto = common_prefix(ids_of(text[:start]), ids), ids_of(text[:end])
        last = common_prefix(upto, ids)
        last += last < len(upto)
        mask[first:last] = [True] * (last - first)
    return Rendered(ids, mask)


def conversations_of(style: str) -> list[list[dict[str, Any]]]:
    system = [{"role": "system", "content": "Answer briefly."}] if STYLES[style].system else []
    forged = json.loads(json.dumps(CONVERSATION).replace("Four", "Four" + "".join(STYLES[style].special)))
    spaced = json.loads(json.dumps(CONVERSATION).replace("Four.", "  \\n Four.\\n\\n "))
    long = [*CONVERSATION, *CONVERSATION, *CONVERSATION]
    return [[*system, *CONVERSATION], CONVERSATION[:2], CONVERSATION[:3], CONVERSATION[:1], forged, spaced, long]


@pytest.mark.parametrize("style", STYLES)
def test_many_conversations_match_rendering_every_beginning(style: str):
    tokenizer = HuggingFaceTokenizer(json.loads(tokenizer_of(style).to_str()))
    rendering, conversations = template(style), conversations_of(style)
    expected = [by_prefixes(rendering, tokenizer, messages) for messages in conversations]
    assert list(rendering.render_all(tokenizer, conversations)) == expected
    for messages, single in zip(conversations, expected, strict=True):
        assert rendering.render(tokenizer, messages) == single
        opened = rendering.render(tokenizer, messages, add_generation_prompt=True)
        assert opened == by_prefixes(rendering, tokenizer, messages, prompt=True)
    assert any(any(single.mask) for single in expected)


def test_tools_belong_to_their_own_conversation():
    tokenizer = HuggingFaceTokenizer(json.loads(tokenizer_of("qwen3").to_str()))
    rendering = template("qwen3")
    with_tools, without = rendering.render_all(tokenizer, [CALLS, CALLS], [TOOLS, None])
    assert with_tools == by_prefixes(rendering, tokenizer, CALLS, TOOLS)
    assert without == by_prefixes(rendering, tokenizer, CALLS)
    assert len(with_tools.ids) > len(without.ids)


def test_smollm2_conversations_match_rendering_every_beginning(smollm2_gguf: Path):
    tokenizer, rendering, _ = load_gguf_tokenizer(metadata_of(smollm2_gguf), 49_152)
    assert isinstance(rendering, ForeignTemplate)
    conversations = conversations_of("qwen2")
    expected = [by_prefixes(rendering, tokenizer, messages) for messages in conversations]
    assert list(rendering.render_all(tokenizer, conversations)) == expected


PIECES = st.sampled_from(["<s>", "</s>", "</", " ", "  ", "\n", "a b", "é", "日本", "<unk>", MARK, "x" * 30])


@settings(max_examples=60)
@given(pieces=st.lists(PIECES, max_size=12), data=st.data())
@pytest.mark.parametrize("style", ["llama2", "phi3", "llama3"])
def test_ids_of_beginnings_match_encoding_them(style: str, pieces: list[str], data: st.DataObject):
    tokenizer = HuggingFaceTokenizer(json.loads(tokenizer_of(style).to_str()))
    text = "".join(pieces)
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2)))
    encoded = EncodedText(tokenizer, text, MARK)

    def ids_of(text: str) -> list[int]:
        return encode_parts(tokenizer, split_special(text, tokenizer.special, MARK))

    assert encoded.ids == ids_of(text)
    first, upto = common_prefix(ids_of(text[: edges[0]]), encoded.ids), ids_of(text[: edges[1]])
    last = common_prefix(upto, encoded.ids)
    last += last < len(upto)
    mask = [False] * len(encoded.ids)
    mask[first:last] = [True] * (last - first)
    assert encoded.mask([(edges[0], edges[1])]) == mask


def test_the_process_is_asked_once_for_many_conversations(monkeypatch: pytest.MonkeyPatch):
    tokenizer, rendering = train_bpe(["some text"], vocab_size=300), ForeignTemplate(source=CHATML.jinja)
    rendering.stop_ids(tokenizer)  # asked once for each template
    lines: list[bytes] = []
    ask = template_sandbox.TemplateProcess.ask

    def counted(self: Any, line: bytes, *more: Any) -> bytes:
        lines.append(line)
        return ask(self, line, *more)

    monkeypatch.setattr(template_sandbox.TemplateProcess, "ask", counted)
    assert list(rendering.render_all(tokenizer, [CONVERSATION] * 50)) == [CHATML.render(tokenizer, CONVERSATION)] * 50
    assert len(lines) == 1
    assert len(list(rendering.render_all(tokenizer, [CONVERSATION] * 200))) == 200
    assert len(lines) == 5


def test_an_error_comes_when_its_conversation_does():
    tokenizer = train_bpe(["some text"], vocab_size=300)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    source = (
        "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
        "{% if m.content == 'ever' %}" + loop + "{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    rendering = ForeignTemplate(source=source, limits=RenderLimits(seconds=1.0))

    def said(content: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": content}]

    for wrong, message in [
        (said("no"), "refuses the conversation: not this"),
        (said("ever"), "does not come to an end"),
        (said({1}), "JSON cannot express"),
        ([{"role": "usr", "content": "x"}], "unknown role"),
    ]:
        rendered = rendering.render_all(tokenizer, [said("a"), said("b"), wrong, said("c")])
        assert [next(rendered).ids, next(rendered).ids] == [rendering.render(tokenizer, said(c)).ids for c in "ab"]
        with pytest.raises(UserError, match=message):
            next(rendered)
