"""The bodies of answers, in OpenAI's form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length", "tool_calls"]


class ErrorFacts(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: ErrorFacts


class PromptDetails(BaseModel):
    cached_tokens: int


class UsageFacts(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Alternative(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Alternative):
    top_logprobs: list[Alternative]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class SaidFunction(BaseModel):
    name: str
    arguments: str


class SaidCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: SaidFunction


class SaidMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[SaidCall] | None = None


class ChatChoice(BaseModel):
    index: int
    message: SaidMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatAnswer(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageFacts
    system_fingerprint: str | None


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class CompletionAnswer(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageFacts
    system_fingerprint: str | None


class EmbeddingFacts(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbeddingFacts]
    model: str
    usage: EmbeddingUsage


class ModelFacts(BaseModel):
    """A model that is served; the fields after `owned_by` are extensions of OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["underhood"] = "underhood"
    stage: str
    chats: bool
    context_length: int
    parameters: int
    aliases: list[str]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelFacts]


class TokenizeAnswer(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class HealthAnswer(BaseModel):
    status: Literal["ok", "failing"]
    models: dict[str, Literal["ok", "failing"]]


class FeedbackAnswer(BaseModel):
    id: int
    model: str
    rating: Literal["up", "down"] | None
    edited: bool


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": meaning}
    for status, meaning in {
        400: "A mistake in the request",
        401: "The key is missing or wrong",
        403: "A web page of another origin asked",
        404: "There is no such thing",
        413: "The body is too large",
        429: "The queue is full; Retry-After says when to come back",
        503: "The engine has failed or is shutting down",
    }.items()
}
"""What any route may answer instead, for the API's description."""
