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


class UrlCitation(BaseModel):
    """Which characters of an answer cite a source; the URL of a local document is its name with ``#L`` and the line."""

    start_index: int
    end_index: int
    title: str
    url: str


class CitationFacts(BaseModel):
    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class RetrievedPassage(BaseModel):
    """A passage that the model read.

    Attributes:
        number: by which answers cite it, from 1.
        line: of the source where it begins.
        matched: the words of the question that it has.
        marks: where they are in `text`: start and end, in characters.
    """

    number: int
    title: str
    text: str
    source: str
    line: int
    score: float
    matched: list[str]
    marks: list[tuple[int, int]]


class SaidMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[SaidCall] | None = None
    annotations: list[CitationFacts] | None = None


class ChatChoice(BaseModel):
    index: int
    message: SaidMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatAnswer(BaseModel):
    """`retrieved` extends OpenAI's: the passages that all choices were written from; null without retrieval."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageFacts
    system_fingerprint: str | None
    retrieved: list[RetrievedPassage] | None = None


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
    """A model that is served; the fields after `owned_by` are extensions of OpenAI's.

    Attributes:
        index: the passage index that it answers from where a request does not say otherwise.
        indexes: all that a request can name.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["underhood"] = "underhood"
    stage: str
    chats: bool
    context_length: int
    parameters: int
    aliases: list[str]
    index: str | None
    indexes: list[str]


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
