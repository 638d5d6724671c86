"""The bodies of requests, field by field as OpenAI documents them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from underhood.web.messages import Message, Name
from underhood.web.shared_fields import MOST_TOP, Body, GenerationBody, ResponseFormat, TokenId, Whole

Texts = Annotated[list[str], Field(min_length=1)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]


class Function(Body):
    name: Name
    description: str | None = Field(default=None, max_length=10_000)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChosenName(Body):
    name: Name


class ChosenTool(Body):
    type: Literal["function"]
    function: ChosenName


class AllowedToolList(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenTool], Field(min_length=1, max_length=128)]


class AllowedTools(Body):
    """Only these of the request's tools may be called; the list of tools itself stays as it is, for the cache."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolList


NamedTools = Annotated[ChosenTool | AllowedTools, Field(discriminator="type")]


MOST_PASSAGES = 20


class RetrieveOptions(Body):
    """Retrieval for one answer; what is left out is the server's default.

    Attributes:
        k: how many passages the model reads.
        quote: whether the answer is held to sentences of the passages, or to saying that they don't answer.
        index: the index to search, one of those that ``/v1/models`` names.
    """

    k: Whole | None = Field(default=None, ge=1, le=MOST_PASSAGES)
    quote: bool | None = None
    index: str | None = Field(default=None, min_length=1, max_length=512)


def _switch_or_options(value: Any) -> Any:
    if value is None or isinstance(value, (bool, dict, RetrieveOptions)):
        return value
    raise ValueError("expected true, false, or an object with k, quote and index")


Retrieve = Annotated[bool | RetrieveOptions | None, BeforeValidator(_switch_or_options)]
"""Not OpenAI's: whether an answer is written from retrieved passages."""


class ChatRequest(GenerationBody):
    """``POST /v1/chat/completions``.

    Fields that only concern OpenAI's own house (who asks, where it is kept) are accepted and change nothing; those that
    would change the answer and can't be honoured are refused.
    """

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: Whole | None = Field(default=None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(default=None, ge=0, le=MOST_TOP)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTools | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    retrieve: Retrieve = None


class CompletionRequest(GenerationBody):
    """``POST /v1/completions``. An empty prompt begins a new text."""

    prompt: str | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)] = ""
    best_of: Whole | None = Field(default=None, ge=1, le=64)
    echo: bool | None = None
    logprobs: Whole | None = Field(default=None, ge=0, le=MOST_TOP)
    suffix: None = None
    response_format: ResponseFormat | None = None


class EmbeddingRequest(Body):
    """``POST /v1/embeddings``: the mean of the last layer's output, of length 1."""

    model: str = Field(max_length=512)
    input: str | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = Field(default=None, ge=1)
    user: str | None = Field(default=None, max_length=512)


class TokenizeRequest(Body):
    """``POST /tokenize``: a text as it is, or a conversation in the model's form."""

    model: str | None = Field(default=None, max_length=512)
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool = True
    """Opens a prompt as in training (begin of text); a conversation brings its own marks."""
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class FeedbackRequest(Body):
    """``POST /v1/feedback``: about a recent answer by its id, or about any exchange given whole.

    Attributes:
        id, choice: which answer; `model`, `messages` and `answer` are then known.
        rating: thumbs up or down.
        edit: how the answer should have been.
    """

    id: str | None = Field(default=None, max_length=128)
    choice: Whole = Field(default=0, ge=0, le=64)
    model: str | None = Field(default=None, max_length=512)
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None
    answer: str | None = None
    rating: Literal["up", "down"] | None = None
    edit: str | None = None
    comment: str | None = Field(default=None, max_length=10_000)
