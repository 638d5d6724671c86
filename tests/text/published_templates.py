"""Chat templates in the styles of published models, written for these tests: the constructs that each family uses."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from text.made_tokenizers import llama2, llama3


@dataclass(frozen=True)
class Style:
    """A template, its tokens, and what a test conversation's answers look like in it.

    Attributes:
        answers: the text under the loss mask for the two answers "Four." and "Blue, of course." of `CONVERSATION`.
        end: the token that ends a turn.
        system: whether a system message is allowed.
    """

    source: str
    answers: tuple[str, str]
    end: str | None
    special: tuple[str, ...]
    system: bool = True
    variables: dict[str, Any] = field(default_factory=dict)


CONVERSATION = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And the sky's colour?\n"},
    {"role": "assistant", "content": "Blue, of course."},
]

IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

QWEN2 = """{% for message in messages %}{% if loop.first and message.role != 'system' %}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

QWEN3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string %}
        {%- if not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
            {%- set ns.searching = false %}{%- set ns.last = index %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
            {{- content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}
{% set instruction = messages[0]['content'] %}{% else %}{% set turns = messages %}
{% set instruction = false %}{% endif %}{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles have to alternate: user, assistant, user, assistant') }}{% endif %}
{% if loop.index0 == 0 and instruction != false %}
{% set content = '<<SYS>>\\n' + instruction + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}
{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set instruction = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set instruction = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + strftime_now("%d %b %Y") + "\\n\\n" }}
{{- instruction }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls|length != 1 %}{{- raise_exception("Only one call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}{{- message.content | tojson }}{{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set instruction = messages[0]["content"] %}{%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in turns if message.role in ["user", "assistant"] %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the system message, user and assistant take turns") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and loop.last %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}{{- tool.function | tojson }}{{- ", " if not loop.last else "]" }}{%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and instruction is defined %}
            {{- "[INST] " + instruction + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}"""

MIXTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('User and assistant must take turns') }}{% endif %}{% if message['role'] == 'user' %}
{{ ' [INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant exist') }}{% endif %}
{% endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('There is no system role') }}{% endif %}
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Turns must alternate') }}{% endif %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

PHI3 = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}
{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}
{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}
{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

OLMO2 = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'assistant' %}{% if not loop.last %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token + '\\n' }}{% else %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}{% endif %}{% endif %}
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"""

ALPACA = """{% macro part(name, text) -%}### {{ name }}:
{{ text }}

{% endmacro %}
{% for message in messages %}
{% if message.role == 'system' %}{{ message.content + '\\n\\n' }}{% continue %}{% endif %}
{{ part({'user': 'Instruction', 'assistant': 'Response'}[message.role], message.content) }}
{%- endfor %}
{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"""

MARKED = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}{% if message.role == 'assistant' %}
{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}
{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PLAIN = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>")

STYLES = {
    "qwen2": Style(QWEN2, ("Four.<|im_end|>", "Blue, of course.<|im_end|>"), "<|im_end|>", IM),
    "qwen3": Style(
        QWEN3, ("Four.<|im_end|>", "<think>\n\n</think>\n\nBlue, of course.<|im_end|>"), "<|im_end|>", IM
    ),
    "llama2": Style(LLAMA2, (" Four. </s>", " Blue, of course. </s>"), "</s>", ("<s>", "</s>"), True, PLAIN),
    "llama3": Style(
        LLAMA3, ("Four.<|eot_id|>", "Blue, of course.<|eot_id|>"), "<|eot_id|>", HEADERS, True,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "mistral": Style(MISTRAL, (" Four.</s>", " Blue, of course.</s>"), "</s>", ("<s>", "</s>"), True, PLAIN),
    "mixtral": Style(MIXTRAL, (" Four.</s>", " Blue, of course.</s>"), "</s>", ("<s>", "</s>"), False, PLAIN),
    "gemma": Style(
        GEMMA, ("Four.<end_of_turn>", "Blue, of course.<end_of_turn>"), "<end_of_turn>",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), False, {"bos_token": "<bos>", "eos_token": "<eos>"},
    ),
    "phi3": Style(
        PHI3, ("Four.<|end|>", "Blue, of course.<|end|>"), "<|end|>", TURNS, True, {"eos_token": "<|endoftext|>"}
    ),
    "zephyr": Style(ZEPHYR, ("\nFour.</s>", "\nBlue, of course.</s>"), "</s>", ("<s>", "</s>"), True, PLAIN),
    "olmo2": Style(
        OLMO2, ("Four.<|endoftext|>", "Blue, of course.<|endoftext|>"), "<|endoftext|>", ("<|endoftext|>",), True,
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    ),
    "alpaca": Style(ALPACA, ("Four.", "Blue, of course."), None, ("</s>",), True, {"eos_token": "</s>"}),
    "marked": Style(MARKED, ("Four.<|im_end|>", "Blue, of course.<|im_end|>"), "<|im_end|>", IM),
}  # fmt: skip


@functools.cache
def tokenizer_of(style: str) -> Tokenizer:
    """A tokenizer with the style's special tokens: SentencePiece-like where the family has it so."""
    peer = llama2() if style in ("llama2", "mistral", "mixtral", "zephyr") else llama3()
    peer.add_special_tokens(list(STYLES[style].special))
    if style == "phi3":
        data = json.loads(peer.to_str())
        for token in data["added_tokens"]:
            token["rstrip"] = token["content"] in ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
        peer = Tokenizer.from_str(json.dumps(data))
    return peer
