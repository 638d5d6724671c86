"""Greedy decoding up to a stop string, for test sets with a written answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.generate import generate

ROUND = 64
"""Tokens between two looks at the text: stop strings are not tokens, so they are searched for in what is written."""


def write_until(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[str],
    *,
    max_new_tokens: int = 256,
    stop_ids: Collection[int] = (),
    batch_size: int = 64,
) -> list[str]:
    """What the model writes greedily after each prompt, up to the first of `stops` (which is left out).

    A prompt that leaves no room for `max_new_tokens` in the model's context loses its oldest tokens.

    Raises:
        UserError: the context is too small for the answer alone.
    """
    if model.context_length is not None and max_new_tokens >= model.context_length:
        raise UserError(
            "the model's context has no room for the answer",
            expected=f"fewer than {model.context_length} new tokens",
            got=str(max_new_tokens),
        )
    room = None if model.context_length is None else model.context_length - max_new_tokens
    kept = [list(prompt if room is None else prompt[-room:]) for prompt in prompts]
    written: list[list[int]] = [[] for _ in kept]
    texts = [""] * len(kept)
    open_ = list(range(len(kept)))
    for start in range(0, max_new_tokens, ROUND):
        done = generate(
            model,
            [kept[number] + written[number] for number in open_],
            max_new_tokens=min(ROUND, max_new_tokens - start),
            stop_ids=stop_ids,
            batch_size=batch_size,
        )
        still = []
        for number, completion in zip(open_, done, strict=True):
            written[number] += completion.ids
            text, stopped = _cut(tokenizer.decode(written[number]), stops)
            texts[number] = text
            if not stopped and completion.finish == "length":
                still.append(number)
        open_ = still
        if not open_:
            break
    return texts


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
