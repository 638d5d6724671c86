"""Options, result type and helpers that the views of ``underhood inspect`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import Lens, read_out
from underhood.inspect.patching import PatchSweep
from underhood.inspect.trace import Trace, checked_position
from underhood.inspect.word_ranks import single_token
from underhood.ui.terminal import table


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
    task: str = "previous"


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


def chosen_layer(loaded: LoadedModel, args: ViewOptions, *, default: int = 0, end: bool = False) -> int:
    """The layer that ``--layer`` names.

    Args:
        default: if it is left out.
        end: the residual stream after the last layer counts too.

    Raises:
        UserError: the model does not have that layer.
    """
    layer, last = default if args.layer is None else args.layer, len(loaded.decoder.blocks) - (not end)
    if not 0 <= layer <= last:
        raise UserError("--layer is out of range", expected=f"0 to {last}", got=str(layer))
    return layer


def scored_tokens(loaded: LoadedModel, args: ViewOptions, recorded: Trace, position: int) -> tuple[int, int | None]:
    """The ids of ``--answer``, or else of the likeliest token after a position, and of ``--other``, if there is one.

    Args:
        recorded: as for `likeliest_token`.

    Raises:
        UserError: a text is not one token, or both are the same.
    """
    answer = token_id(loaded, args.answer, "--answer") if args.answer else likeliest_token(loaded, recorded, position)
    other = token_id(loaded, args.other, "--other") if args.other else None
    if answer == other:
        named = "as --answer" if args.answer else "as the likeliest one, which is followed without --answer"
        raise UserError(f"--other is the same token {named}", expected="another one, to compare with")
    return answer, other


def layer_table(lens: Lens, heads: Sequence[str], columns: Sequence[Sequence[str]]) -> Table:
    """The likeliest tokens of each layer's residual stream; between layer and tokens, columns with other numbers."""
    last = len(lens.ids) - 1
    rows = [
        [str(layer) if layer < last else "end", *numbers, shown_shares(lens.row(layer))]
        for layer, numbers in enumerate(zip(*columns, strict=True))
    ]
    return table(["layer", *heads], rows)


def patch_table(sweep: PatchSweep) -> Table:
    """The tokens of each layer whose patches make the largest share of the way to the source."""
    rows = []
    for layer, shares_T in enumerate(sweep.restored):
        top = shares_T.topk(min(3, len(shares_T)))
        pieces = [sweep.pieces[token][:12] for token in top.indices.tolist()]
        name = str(layer) if layer < len(sweep.restored) - 1 else "end"
        rows.append([name, shown_shares(zip(pieces, top.values.tolist(), strict=True))])
    return table(["layer", "tokens"], rows)


def patch_values(sweep: PatchSweep) -> dict[str, Any]:
    """The numbers of a sweep for JSON."""
    facts = {"pieces": sweep.pieces, "source": sweep.source, "target": sweep.target}
    return facts | {"differences": sweep.differences.tolist()}


def shown_shares(shares: Iterable[tuple[str, float]]) -> str:
    """Tokens with a number each, on one line."""
    return "  ".join(f"{piece} {share:.2f}" for piece, share in shares)


def token_id(loaded: LoadedModel, text: str, option: str) -> int:
    """The id of a token that an option names.

    Raises:
        UserError: the text is more than one token, or none.
    """
    return single_token(loaded, text, f"{option} ")
