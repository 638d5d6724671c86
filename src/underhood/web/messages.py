"""Chat messages of a request: what OpenAI documents, and what clients send back of earlier answers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from underhood.web.shared_fields import Body, Whole

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class TextPart(Body):
    type: Literal["text"]
    text: str
    annotations: Any = None
    cache_control: Any = None


class RefusalPart(Body):
    type: Literal["refusal"]
    refusal: str


Content = str | Annotated[list[TextPart], Field(min_length=1)]
AnswerContent = str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]]


class MessageBody(Body):
    """Fields that stores, gateways and clients put beside any message. They say nothing to a model, so they are
    accepted and change nothing."""

    name: str | None = None
    id: Any = None
    object: Any = None
    created: Any = None
    created_at: Any = None
    timestamp: Any = None
    status: Any = None
    cache_control: Any = None
    provider_specific_fields: Any = None


class SystemMessage(MessageBody):
    role: Literal["system", "developer"]
    content: Content


class UserMessage(MessageBody):
    role: Literal["user"]
    content: Content


def _text_of_arguments(value: Any) -> Any:
    """Arguments as OpenAI writes them, JSON in a text; some clients send the object itself."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else "{}" if value in ("", None) else value


class CalledFunction(Body):
    name: Name
    arguments: Annotated[str, BeforeValidator(_text_of_arguments)] = "{}"
    parsed_arguments: Any = None


class ToolCall(Body):
    """A call as an answer or the chunks of a stream told it."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction
    index: Whole | None = None


class AssistantMessage(MessageBody):
    """An earlier answer; the fields that answers come with are welcome back.

    Attributes:
        reasoning_content: what a reasoning model thought, for templates that show it.
    """

    role: Literal["assistant"]
    content: AnswerContent | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    parsed: Any = None
    annotations: Annotated[list[Any], Field(max_length=1000)] | None = None
    audio: None = None
    function_call: None = None


class ToolMessage(MessageBody):
    """What a called function returned, which may be nothing."""

    role: Literal["tool"]
    content: AnswerContent | None = None
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


def plain(message: Message) -> dict[str, Any]:
    """A message as templates read it: its content as one text, and only the fields that say something to a model."""
    fields: dict[str, Any] = {"role": message.role, "content": _text_of_content(message.content)}
    if message.name is not None:
        fields["name"] = message.name
    if isinstance(message, SystemMessage):  # "developer" is OpenAI's newer word for it
        fields["role"] = "system"
    elif isinstance(message, AssistantMessage):
        fields["content"] = fields["content"] or message.refusal or ""
        if message.reasoning_content is not None:
            fields["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            fields["tool_calls"] = [_plain_call(call, number) for number, call in enumerate(message.tool_calls)]
    elif isinstance(message, ToolMessage):
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _plain_call(call: ToolCall, number: int) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id or f"call-{number}", "type": "function", "function": function}


def _text_of_content(content: str | list[TextPart] | list[TextPart | RefusalPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(piece.text if isinstance(piece, TextPart) else piece.refusal for piece in content)
