"""Chain of Hindsight: learning from answers side by side, with feedback in words (Liu, Sferrazza & Abbeel 2023).

Preferences become plain text: a question, then its answers from the worst to the best, each after words that say how
good it is ("Bad: … Good: …"). The model learns this text like any other, so no reward model and no second copy of the
weights are needed, and the worse answers teach as well. Later the words "Good:" after a question ask for a good answer.

Two details of the paper (section 2): the loss falls on the answers alone, never on question or feedback; and some past
tokens are hidden at random, so that the model does not copy an answer that is nearly the same from the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from underhood.text.chat import Rendered

HIDDEN_SHARE = 0.05
"""The largest share of past tokens that is hidden: the paper's 0 % to 5 %."""

Judged = tuple[Sequence[int], Sequence[int]]
"""The ids of the feedback and those of the answer that it is about."""


def hindsight_chain(question: Sequence[int], answers: Sequence[Judged]) -> Rendered:
    """A question and its judged answers in the order given, worst first, as ids; loss on the answers only.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("a chain has at least one answer")
    ids, mask = [*question], [False] * len(question)
    for feedback, answer in answers:
        ids += [*feedback, *answer]
        mask += [False] * len(feedback) + [True] * len(answer)
    return Rendered(ids, mask)


def hide_past_tokens(
    tokens_BT: Int[Tensor, "B T"],
    answers_BT: Bool[Tensor, "B T"],
    *,
    hidden_id: int,
    generator: torch.Generator,
    most: float = HIDDEN_SHARE,
) -> Int[Tensor, "B T"]:
    """The inputs with some tokens of answers replaced by `hidden_id`; what is to be predicted stays as it is.

    Each row hides a share of its own, uniform between 0 and `most`. The paper takes the tokens out of the attention
    (forgetful causal masking, Liu et al. 2022); here their identity is hidden and their position stays.

    Args:
        answers_BT: where an input token belongs to an answer; question and feedback are never hidden.
    """
    share_B1 = most * torch.rand(len(tokens_BT), 1, generator=generator)
    hidden_BT = torch.rand(tokens_BT.shape, generator=generator) < share_B1
    return tokens_BT.masked_fill(hidden_BT & answers_BT, hidden_id)
