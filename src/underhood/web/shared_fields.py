"""Types of the fields that several kinds of request share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_TOP = 20
"""Alternatives that may be asked for beside each token."""

LARGEST_SEED = 2**63 - 1


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
BiasedToken = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
TokenId = Annotated[Whole, Field(ge=0)]


class Body(BaseModel):
    """Nothing is guessed: an unknown field is a mistake, and a number in quotes is a text.

    An unknown field that is null asks for nothing: clients write out all fields that they know.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: value for name, value in given.items() if value is not None or name in known}


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Accepted; nothing is padded, for nothing here passes through other hands encrypted."""


class GenerationBody(Body):
    """What chat and plain completions share.

    Where a request names none of `temperature`, `top_p`, `top_k` and `min_p`, text is drawn as the model's files name
    it, else by the model's size (`infer.default_sampling`); where it names one, only those that it names count.
    """

    model: str = Field(max_length=512)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: Whole | None = Field(default=None, ge=1, le=2**31 - 1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: Whole | None = Field(default=None, ge=-LARGEST_SEED - 1, le=LARGEST_SEED)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=4096)
    stop: (
        Annotated[str, Field(min_length=1, max_length=1000)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)]
        | None
    ) = None
    n: Whole | None = Field(default=None, ge=1, le=64)
    max_tokens: Whole | None = Field(default=None, ge=0, le=2**31 - 1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: str | None = Field(default=None, max_length=256)
    """Requests share what has been read of like prompts only with those of the same salt."""
    user: str | None = Field(default=None, max_length=512)


class Format(Body):
    type: Literal["text"]


class JsonFormat(Body):
    type: Literal["json_object"]


class NamedSchema(Body):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = Field(default=None, max_length=10_000)
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class SchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class RegexFormat(Body):
    """Not OpenAI's: the whole answer matches a regular expression."""

    type: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=10_000)


ResponseFormat = Annotated[Format | JsonFormat | SchemaFormat | RegexFormat, Field(discriminator="type")]
