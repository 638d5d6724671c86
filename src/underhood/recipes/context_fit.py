"""Context fit: leaves out training data and evaluation prompts that are too long for a model's context.

A context that a user chooses may be too short for questions with passages, or for any conversation at all. What does
not fit is left out and counted: an answer to half a prompt says nothing about a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from underhood.core.protocols import Tokenizer
from underhood.data.grounded import with_passages
from underhood.infer.chat import ANSWER_SHARE
from underhood.recipes.training_data import ReferenceAnswer, StageData, render_examples, render_pairs
from underhood.text.chat import CHATML, Template

LEAST_ROOM = 8
"""Tokens that are left for an answer at least, where a prompt is too long and its beginning is cut off."""

UNBOUNDED = 1 << 20
"""Context of a model without a longest one, in tokens."""


def prompt_limit(context_length: int | None, max_tokens: int) -> int:
    """Tokens of a prompt at most, so that there is room for an answer, as in a chat."""
    context = context_length or UNBOUNDED
    return max(1, context - min(max_tokens, context // ANSWER_SHARE))


def fitting_prompts(
    questions: Sequence[ReferenceAnswer],
    tokenizer: Tokenizer,
    template: Template,
    limit: int,
    *,
    passages: bool = False,
) -> list[ReferenceAnswer]:
    """The questions whose prompts have at most `limit` tokens.

    Args:
        passages: they are put with what a search finds; passages are cut to the context, the question is not.
    """
    fitting = []
    for question in questions:
        content = with_passages(question.prompt, ()) if passages else question.prompt
        prompt = template.render(tokenizer, [{"role": "user", "content": content}], add_generation_prompt=True)
        if len(prompt.ids) <= limit:
            fitting.append(question)
    return fitting


def fitting_data(data: StageData, tokenizer: Tokenizer, context_length: int) -> StageData:
    """The same data without the conversations and pairs that are too long to learn from.

    Without any conversation there are no pairs either: preferences are learnt by a model that answers.
    """
    rendered = render_examples(tokenizer, data.examples, CHATML)
    kept = [example for example, row in zip(data.examples, rendered, strict=True) if len(row.ids) - 1 <= context_length]
    fits = [bool(render_pairs(tokenizer, [pair], context_length=context_length)) for pair in data.pairs]
    pairs = [pair for pair, fit in zip(data.pairs, fits, strict=True) if fit and kept]
    return replace(data, examples=kept, pairs=pairs)
