"""A teacher's answers to the questions of conversations, for sequence-level distillation (Kim & Rush 2016).

The student then learns from texts alone, so the two models may have different tokenizers and chat templates. Kim and
Rush take the best sequence of a beam search; here the teacher writes greedily, or samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.text_files import read_text
from underhood.data.conversations import Conversation
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel
from underhood.infer.sample import SamplingSpec
from underhood.text.chat import Template

GENERATED_AT_ONCE = 32
"""Prompts between two reports of progress."""


@dataclass(frozen=True)
class TeacherAnswers:
    """Conversations whose last answer is the teacher's.

    Attributes:
        conversations: those with an answer that came to an end.
        cut: answers that reached the limit of tokens; they are left out, for a student would learn to stop there.
        too_long: questions that fill the teacher's context.
        empty: answers without a word.
    """

    conversations: tuple[Conversation, ...]
    cut: int = 0
    too_long: int = 0
    empty: int = 0

    @property
    def left_out(self) -> str:
        """The counts of what was left out, in words; empty if nothing was."""
        counts = {
            "answers reached the limit of tokens": self.cut,
            "questions fill the teacher's context": self.too_long,
            "answers are empty": self.empty,
        }
        return ", ".join(f"{count:,} {text}" for text, count in counts.items() if count)


def question_of(conversation: Conversation) -> tuple[dict[str, str], ...]:
    """The messages before the last answer.

    Raises:
        UserError: the conversation has tools, whose calls another model can't be made to repeat.
    """
    if conversation.tools or any("tool_calls" in message for message in conversation.messages):
        raise UserError(
            f"{conversation.source} calls tools, so its answers can't be written anew",
            fix="Use --method soft, or leave such records out",
        )
    last = max(n for n, message in enumerate(conversation.messages) if message["role"] == "assistant")
    return conversation.messages[:last]


def answer_again(
    teacher: LoadedModel,
    template: Template,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherAnswers:
    """The conversations with the teacher's own last answers, `samples` of each.

    Raises:
        UserError: no answer came to an end.
    """
    if samples > 1 and temperature == 0:
        raise UserError("several greedy answers would be the same", fix="Give a temperature above 0")
    stop_ids, limit = template.stop_ids(teacher.tokenizer), teacher.decoder.context_length
    jobs: list[tuple[Conversation, list[int]]] = []
    too_long = 0
    for conversation in conversations:
        ids = template.render(teacher.tokenizer, question_of(conversation), add_generation_prompt=True).ids
        if len(ids) >= limit:
            too_long += 1
        else:
            jobs += [(conversation, ids)] * samples
    kept: list[Conversation] = []
    cut = empty = 0
    for first in range(0, len(jobs), GENERATED_AT_ONCE):
        if progress is not None:
            progress(first, len(jobs))
        chunk = jobs[first : first + GENERATED_AT_ONCE]
        completions = generate(
            teacher.model,
            [ids for _, ids in chunk],
            max_new_tokens=max_new_tokens,
            sampling=SamplingSpec(temperature=temperature, seed=seed + first),
            stop_ids=stop_ids,
            batch_size=GENERATED_AT_ONCE,
        )
        for (conversation, _), completion in zip(chunk, completions, strict=True):
            text = teacher.tokenizer.decode(completion.ids).strip()
            if completion.finish != "stop":
                cut += 1
            elif not text:
                empty += 1
            else:
                messages = (*question_of(conversation), {"role": "assistant", "content": text})
                kept.append(replace(conversation, messages=messages, not_learnt=frozenset()))
    if progress is not None:
        progress(len(jobs), len(jobs))
    answers = TeacherAnswers(tuple(kept), cut, too_long, empty)
    if not kept:
        raise UserError(
            "the teacher gave no answer to learn from",
            expected="answers that come to an end",
            got=answers.left_out or "no conversations",
            fix="Give a larger --answer-tokens, or a teacher that has learnt to chat",
        )
    return answers


def write_answers(answers: TeacherAnswers, path: Path) -> None:
    """Writes them as JSON lines, a file that fine-tuning reads as well."""
    lines = [json.dumps({"messages": each.messages, "source": each.source}) for each in answers.conversations]
    write_text(path, "".join(line + "\n" for line in lines))


def read_answers(path: Path) -> TeacherAnswers:
    """What `write_answers` wrote; the counts of what was left out are not in the file."""
    records = [json.loads(line) for line in read_text(path).splitlines()]
    return TeacherAnswers(tuple(Conversation(tuple(each["messages"]), each["source"]) for each in records))
