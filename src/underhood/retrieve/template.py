"""Retrieval template: how a model is shown passages (retrieval-augmented generation, Lewis et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underhood.retrieve.passages import Passage
from underhood.text.chat import Message

NOT_THERE = "That is not in the documents."


@dataclass(frozen=True, kw_only=True)
class RetrievalTemplate:
    """The form of a prompt with passages.

    The question comes before the passages: a small model that has read the question first copies the right words from
    them, and with the question last it copies wrong ones (measured: ROUGE-L 0.78 and 0.51).

    Attributes:
        passages: how many passages the model reads.
        history: whether it also reads the earlier turns.
        instruction: what follows the passages; "" for models that were trained on this form.
        quote: whether answers are held to the passages, unless told otherwise.
        refusal: the answer to a question that the passages do not answer.
    """

    passages: int
    history: bool
    instruction: str = ""
    quote: bool = False
    refusal: str = NOT_THERE

    def apply(self, messages: Sequence[Message], passages: Sequence[Passage]) -> tuple[Message, ...]:
        """The messages that the model reads: the last one becomes the question and the numbered passages.

        Without passages the last message stays as it is. A system message always stays; the other earlier turns only
        with `history`.
        """
        *earlier, question = messages
        if not self.history:
            earlier = [message for message in earlier if message["role"] == "system"]
        if not passages:
            return (*earlier, question)
        shown = "\n".join(f"[{number}] {passage.shown}" for number, passage in enumerate(passages, 1))
        pieces = [question["content"], shown, *([self.instruction] if self.instruction else [])]
        return (*earlier, {**question, "content": "\n\n".join(pieces)})


TAUGHT = RetrievalTemplate(passages=1, history=False, quote=True)
"""For models of `underhood build`, which are trained on this form and too small to choose among several passages."""

INSTRUCTED = RetrievalTemplate(
    passages=3,
    history=True,
    instruction=(
        "Answer the question from the passages above and cite the passage that you used, like this: [1]. If the "
        f'passages do not answer it, say "{NOT_THERE}"'
    ),
)
"""For every other chat model: it is told what to do with the passages."""
