"""Options, result type and helpers that the views of ``underhood inspect`` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import read_out
from underhood.inspect.trace import Trace, checked_position
from underhood.inspect.word_ranks import single_token


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """The options of a view; see `cli.inspect.Args`."""

    prompt: str | list[int]
    position: int
    layer: int | None
    answer: str | None
    other: str | None
    against: str | list[int] | None
    top: int
    stage: str | None = None
    compare: str | None = None
    replacement: str | None = None
    ablation: str = "zero"
    toward: str | list[int] | None = None
    strength: float = 1.0
    words: tuple[str, ...] = ()
    text: str | None = None
    trained: Path | None = None


View = tuple[dict[str, Any], Callable[[Console], None]]
"""The numbers, and a function that prints them."""


def view_options(args: Any, loaded: LoadedModel) -> ViewOptions:
    """The options of a view from those of the command, its texts as questions if they are to be.

    Args:
        args: `cli.inspect.Args`.
    """
    given = {field.name: getattr(args, field.name) for field in fields(ViewOptions)}
    if args.chat:
        texts = {name: given[name] for name in ("prompt", "against", "toward") if given[name] is not None}
        given |= {name: chat_prompt(loaded, text) for name, text in texts.items()}
    return ViewOptions(**given)


def chat_prompt(loaded: LoadedModel, question: str) -> list[int]:
    """A question as the model reads it in a conversation, up to where its answer begins.

    Raises:
        UserError: the model has not learnt to chat.
    """
    if loaded.template is None:
        raise UserError(f"the {loaded.stage} model has not learnt to chat", fix="Leave out --chat")
    rendered = loaded.template.render(
        loaded.tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True
    )
    return rendered.ids


def print_heading(out: Console, recorded: Trace, position: int) -> None:
    """The length of the prompt, and the token after which is looked."""
    shown = position_in(recorded, position)
    count = len(recorded.ids)
    tokens = f"{count} token{'s' if count > 1 else ''}"
    out.print(f"{tokens}; after token {shown}, {recorded.pieces[shown]}", style="bold")


def position_in(recorded: Trace, position: int) -> int:
    """A position of the prompt, counted from its start; a `UserError` if the prompt is shorter."""
    return checked_position(position, len(recorded.ids))


def likeliest_token(loaded: LoadedModel, recorded: Trace, position: int) -> int:
    """The id that the model finds likeliest after a position; the trace has ``residual`` of every layer."""
    layers = len(loaded.decoder.blocks)
    return int(read_out(loaded.decoder, recorded[f"residual.{layers}"][position]).argmax())


def token_id(loaded: LoadedModel, text: str, option: str) -> int:
    """The id of a token that an option names.

    Raises:
        UserError: the text is more than one token, or none.
    """
    return single_token(loaded, text, f"{option} ")
