"""Retrieval template: how a model is shown passages (retrieval-augmented generation, Lewis et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underhood.data.grounded import with_passages
from underhood.data.instruct import NOT_THERE
from underhood.retrieve.passages import Passage
from underhood.text.chat import Message


@dataclass(frozen=True, kw_only=True)
class RetrievalTemplate:
    """The form of a prompt with passages.

    The question comes before the passages: a small model that has read the question first copies the right words from
    them, and with the question last it copies wrong ones (measured: ROUGE-L 0.78 and 0.51).

    Attributes:
        passages: how many passages the model reads.
        history: whether it also reads the earlier turns.
        min_coverage: share of the question's weight that a passage must have (`retrieve.index.Hit.coverage`).
        names_must_match: passages that do not mention any name that the question is about are left out: a small model
            would take one about ``os.listdir`` for an answer about ``textwrap.listdir``.
        instruction: what follows the passages; "" for models that were trained on this form.
        quote: whether answers are held to the passages, unless told otherwise.
        refusal: the answer to a question that the passages do not answer.
        chats: a question that names no code may be about anything: its answer is free unless quotations are asked for,
            and where nothing is found it stays plain chat, with the conversation before it. Otherwise the model is told
            that nothing was found.
    """

    passages: int
    history: bool
    min_coverage: float = 0.0
    names_must_match: bool = False
    instruction: str = ""
    quote: bool = False
    refusal: str = NOT_THERE
    chats: bool = False

    def readable(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The turns that the model reads: a system message, the earlier ones only with `history`, and the last."""
        kept = [message for message in messages[:-1] if self.history or message["role"] == "system"]
        return (*kept, messages[-1])

    def apply(self, messages: Sequence[Message], passages: Sequence[Passage]) -> tuple[Message, ...]:
        """The messages that the model reads: the last one becomes the question and the numbered passages.

        Without passages it says that none was found. A system message always stays; the other earlier turns only with
        `history`.
        """
        *earlier, question = self.readable(messages)
        content = with_passages(question["content"], [passage.shown for passage in passages])
        if self.instruction and passages:
            content = f"{content}\n\n{self.instruction}"
        return (*earlier, {**question, "content": content})


TAUGHT = RetrievalTemplate(passages=1, history=False, min_coverage=0.45, names_must_match=True, quote=True)
"""For models of `underhood build`, which are trained on this form and too small to choose among several passages."""

TUNED = RetrievalTemplate(passages=1, history=False, min_coverage=0.66, names_must_match=True, quote=True, chats=True)
"""For models of `underhood build --from`: published chat models, trained on the form of `TAUGHT`, that still chat.

They answer anything, so a passage has to fit better before it is put before them: with the limit of `TAUGHT` "What is
the capital of France?" gets one about upper-case letters."""

INSTRUCTED = RetrievalTemplate(passages=1, history=True, instruction="Answer in one sentence.")
"""For every other chat model. A small one recites several passages one after the other, and a longer instruction
becomes its subject ("The passage is about …"); measured with SmolLM2, see LOG.md."""

TRAINED: dict[str, RetrievalTemplate] = {"taught": TAUGHT, "tuned": TUNED}
"""The form that a model was trained on, by what its checkpoint says under ``retrieval``."""


def template_for(retrieval: str | None) -> RetrievalTemplate:
    """The template of a model: the form that it was trained on (a key of `TRAINED`), or instructions."""
    return TRAINED.get(retrieval or "", INSTRUCTED)
