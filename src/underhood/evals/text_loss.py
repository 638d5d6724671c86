"""Bits per byte of any model on plain text, with the model's own tokenizer.

A byte costs the same whatever the tokens are, so models of different tokenizers can be compared (see `perplexity`).
The first token of a document is predicted from the token that opens a text for this model; its end is not scored,
because a chat model closes turns and not documents.
"""

from __future__ import annotations

from collections.abc import Sequence

from underhood.core.errors import UserError
from underhood.data.pack import EvaluationWindows
from underhood.evals.perplexity import LossReport, held_out_loss
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel

MAX_WINDOW = 1024
"""Tokens per window: more context costs time and gains little."""


def text_windows(loaded: LoadedModel, texts: Sequence[str], context_length: int | None = None) -> EvaluationWindows:
    """The texts in the model's tokens, in windows in which each is scored once with at least a quarter of context.

    Args:
        context_length: tokens per window; left out, the model's context or `MAX_WINDOW`, if that is shorter.

    Raises:
        UserError: there is no text, or the window is longer than the model's context.
    """
    longest = loaded.spec.context_length or MAX_WINDOW
    window = min(longest, MAX_WINDOW) if context_length is None else context_length
    if not 1 < window <= longest:
        raise UserError("the window is out of range", expected=f"2 to {longest:,} tokens", got=str(window))
    texts = [text for text in texts if text]
    if not texts:
        raise UserError("there is no text to measure")
    return EvaluationWindows(
        [loaded.tokenizer.encode(text) for text in texts],
        [len(text.encode("utf-8")) for text in texts],
        eot_id=opening_id(loaded),
        context_length=window,
        batch_size=1,  # a real vocabulary's scores of one window are 200 MB already
        stride=max(1, window * 3 // 4),
    )


def text_loss(loaded: LoadedModel, texts: Sequence[str], context_length: int | None = None) -> LossReport:
    """What the model loses on each text; see `text_windows`.

    Raises:
        UserError: as `text_windows`.
    """
    return held_out_loss(loaded.model, text_windows(loaded, texts, context_length), device=device_of(loaded.model))


def opening_id(loaded: LoadedModel) -> int:
    """The token that opens a text: what the model puts before one, or else a token that ends one."""
    return [*loaded.prompt_ids("")[-1:], *loaded.stop_ids, 0][0]
