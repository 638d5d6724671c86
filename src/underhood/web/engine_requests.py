"""From a request's body to what the engine is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from underhood.core.errors import UserError
from underhood.infer.grammar import Grammar
from underhood.infer.json_schema import closed_schema
from underhood.infer.request import Request
from underhood.infer.sample import SamplingSpec
from underhood.retrieve.retriever import Retrieved
from underhood.text.chat import Template
from underhood.text.hf_chat_template import ForeignTemplate
from underhood.text.system_messages import render_conversation
from underhood.web.errors import ApiError, invalid
from underhood.web.messages import plain
from underhood.web.registry import Served
from underhood.web.requests import ChatRequest, CompletionRequest
from underhood.web.retrieval import retrieve, sampling_with
from underhood.web.settings import ServeSettings
from underhood.web.shared_fields import GenerationBody, JsonFormat, RegexFormat, SchemaFormat
from underhood.web.tools import OPEN, Tools, with_tools

DEFAULT_TOKENS = 16
"""Of a plain completion that says nothing else, as OpenAI has it; a chat answer may fill the context."""

SLACK = 4
"""Times that a text may be longer than the context's longest tokens before it is refused unread: some tokenizers
normalise, which can shorten a text."""


@dataclass(frozen=True)
class ChatAsked:
    """A conversation ready for the engine.

    Attributes:
        messages: the conversation as the client wrote it, for feedback.
        retrieved: the passages that the model reads with it; None without retrieval.
    """

    request: Request
    tools: Tools | None
    messages: list[dict[str, Any]]
    retrieved: Retrieved | None = None


def ask_chat(body: ChatRequest, served: Served, settings: ServeSettings) -> ChatAsked:
    """What a chat request asks of the engine.

    Raises:
        ApiError, UserError: what can't be asked of this model, with the field's name.
    """
    _check_stream(body)
    names = [tool.function.name for tool in body.tools or ()]
    if len(set(names)) < len(names):
        raise invalid("Two tools have the same name.", "tools")
    try:
        tools = Tools.of(body)
    except ValueError as error:
        raise invalid(f"Invalid value for tool_choice: {error}.", "tool_choice") from error
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs needs logprobs to be true.", "top_logprobs")
    grammar = _grammar(body.response_format)
    if tools is not None and tools.choice != "none":
        try:
            grammar = tools.grammar(grammar)
        except UserError as error:
            raise invalid(str(error), "tools") from error
    messages = [plain(message) for message in body.messages]
    check_chat(served, messages)
    constrained = "tools" if tools is not None and tools.choice != "none" else "response_format" if grammar else None
    retrieved = retrieve(served.documents, body.retrieve, messages, constrained=constrained)
    shown = messages
    if retrieved is not None:
        shown, grammar = [dict(message) for message in retrieved.messages], grammar or retrieved.grammar
    ids = chat_ids(served, shown, tools)
    if tools is not None and tools.opening:
        ids += served.loaded.tokenizer.encode(tools.opening)
    check_length(served, ids, "messages")
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return ChatAsked(
        Request(
            prompt=ids,
            max_new_tokens=served.answer_room(len(ids)) if most is None else min(most, served.context_length),
            stop_ids=frozenset(served.loaded.stop_ids),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=grammar,
            **_shared(body, served, settings, sampling_with(retrieved, served.loaded)),
        ),
        tools,
        messages,
        retrieved,
    )


def ask_completions(body: CompletionRequest, served: Served, settings: ServeSettings) -> list[Request]:
    """What a completion request asks of the engine, one request per prompt.

    Raises:
        ApiError, UserError: what can't be asked of this model, with the field's name.
    """
    _check_stream(body)
    n, best_of = body.n or 1, body.best_of
    if best_of is not None and best_of < n:
        raise invalid(f"best_of must be at least n, which is {n}.", "best_of")
    if best_of is not None and best_of > n and body.stream:
        raise invalid("best_of knows its best only at the end, so it can't be streamed.", "best_of")
    prompts = prompts_of(body.prompt)
    if len(prompts) > settings.max_prompts:
        raise invalid(f"At most {settings.max_prompts} prompts may come together.", "prompt")
    if len(prompts) * max(n, best_of or 0) > settings.max_choices:
        raise invalid(f"At most {settings.max_choices} choices may be asked for together.", "n")
    grammar = _grammar(body.response_format)
    if body.logprobs is not None and body.logprobs > served.loaded.spec.vocab_size:
        raise invalid("logprobs is larger than the vocabulary.", "logprobs")
    most = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    requests = []
    for prompt in prompts:
        ids = prompt if isinstance(prompt, list) else text_ids(served, prompt, "prompt")
        check_length(served, ids, "prompt")
        requests.append(
            Request(
                prompt=ids,
                max_new_tokens=min(most, served.context_length),
                stop_ids=frozenset(served.loaded.stop_ids),
                best_of=best_of,
                logprobs=body.logprobs,
                grammar=grammar,
                **_shared(body, served, settings),
            )
        )
    return requests


def prompts_of(given: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    """One prompt or many, as texts or ids, as a list of prompts."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]  # type: ignore[list-item]
    return given  # type: ignore[return-value]


def check_chat(served: Served, messages: Sequence[Mapping[str, Any]]) -> Template:
    """The model's chat template, once it is clear that the conversation may fit.

    Raises:
        ApiError: the model has not learnt to chat, or the conversation is too long.
    """
    if served.loaded.template is None:
        raise ApiError(
            400,
            f"The model {served.id} has not learnt to chat; use /v1/completions.",
            param="model",
            code="not_a_chat_model",
        )
    check_size(served, "".join(map(_size_text, messages)), "messages")
    return served.loaded.template


def _size_text(message: Mapping[str, Any]) -> str:
    """All that a template may show of a message."""
    calls = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return "".join([message.get("content") or "", message.get("reasoning_content") or "", *calls])


def chat_ids(
    served: Served, messages: Sequence[dict[str, Any]], tools: Tools | None = None, *, prompt: bool = True
) -> list[int]:
    """A conversation as tokens.

    Raises:
        ApiError: as for `check_chat`, or the template refuses the conversation.
    """
    loaded, template = served.loaded, check_chat(served, messages)
    try:
        if isinstance(template, ForeignTemplate) and OPEN in template.source:
            shown = with_tools(messages, tools, native=True)
            described = tools.described() if tools is not None and tools.choice != "none" else None
            options = {"add_generation_prompt": prompt, "tools": described}
            return render_conversation(template, loaded.tokenizer, shown, **options).ids
        shown = with_tools(messages, tools, native=False)
        return render_conversation(template, loaded.tokenizer, shown, add_generation_prompt=prompt).ids
    except UserError as error:
        raise invalid(str(error), "messages") from error


def text_ids(served: Served, text: str, param: str, *, opened: bool = True) -> list[int]:
    """A text as tokens, opened as in the model's training.

    Raises:
        ApiError: it is so long that it can't fit, or holds what the vocabulary lacks.
    """
    check_size(served, text, param)
    try:
        return served.loaded.prompt_ids(text) if opened else served.loaded.tokenizer.encode(text)
    except UserError as error:
        raise invalid(str(error), param) from error


def check_size(served: Served, text: str, param: str) -> None:
    """Refuses a text that could not fit into the context, before it is read."""
    if len(text) > SLACK * served.context_length * served.longest_token:
        raise _too_long(served, f"{len(text):,} characters", param)


def check_length(served: Served, ids: Sequence[int], param: str) -> None:
    """Refuses a prompt that the model can't read."""
    if len(ids) > served.context_length:
        raise _too_long(served, f"{len(ids):,} tokens", param)
    if not ids:
        raise invalid("The prompt is empty; begin with at least one token.", param)
    if max(ids) >= served.loaded.spec.vocab_size:
        raise invalid(f"Token ids end at {served.loaded.spec.vocab_size - 1}.", param)


def sampling_of(body: GenerationBody, default: SamplingSpec) -> SamplingSpec:
    """How a request's text is drawn: by `default` where it names none of the fields that cut the distribution."""
    named = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    given = {name: value for name, value in named.items() if value is not None}
    spec = SamplingSpec(**given) if given else default
    bias = tuple((int(id), float(value)) for id, value in (body.logit_bias or {}).items())
    return replace(
        spec,
        seed=None if body.seed is None else body.seed % 2**64,
        repetition_penalty=1.0 if body.repetition_penalty is None else float(body.repetition_penalty),
        presence_penalty=float(body.presence_penalty or 0),
        frequency_penalty=float(body.frequency_penalty or 0),
        logit_bias=tuple((id, -float("inf") if value <= -100 else value) for id, value in bias),
    )


def _shared(
    body: GenerationBody, served: Served, settings: ServeSettings, sampling: SamplingSpec | None = None
) -> dict[str, Any]:
    if (body.n or 1) > settings.max_choices:
        raise invalid(f"n is at most {settings.max_choices} here.", "n")
    if any(int(id) >= served.loaded.spec.vocab_size for id in body.logit_bias or ()):
        last = served.loaded.spec.vocab_size - 1
        raise invalid(f"Token ids end at {last}.", "logit_bias")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return {
        "sampling": sampling_of(body, sampling or served.loaded.default_sampling(answers=False)),
        "stop": tuple(stop),
        "n": body.n or 1,
        "cache_salt": body.cache_salt or "",
        "deadline": time.monotonic() + settings.request_seconds,
    }


def _check_stream(body: GenerationBody) -> None:
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options needs stream to be true.", "stream_options")


def _grammar(format: Any) -> Grammar | None:
    try:
        if isinstance(format, JsonFormat):
            return Grammar.json_object()
        if isinstance(format, SchemaFormat):
            return Grammar.json_schema(closed_schema(format.json_schema.schema_ or {}))
        if isinstance(format, RegexFormat):
            return Grammar.regex(format.pattern)
    except UserError as error:
        raise invalid(str(error), "response_format") from error
    return None


def _too_long(served: Served, got: str, param: str) -> ApiError:
    message = f"The model {served.id} reads at most {served.context_length:,} tokens; this is {got}."
    return ApiError(400, message, param=param, code="context_length_exceeded")
