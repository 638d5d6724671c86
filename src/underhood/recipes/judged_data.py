"""Judged answers as tokens: the same writing of prompt and answer for training, measuring and scoring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.align.pairs import Marked
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.data.conversations import split_conversations
from underhood.data.judged_answers import Form, JudgedAnswers, read_judged_answers
from underhood.infer.load import LoadedModel
from underhood.recipes.finetune_spec import FinetuneSpec
from underhood.text.chat import CHATML, Template

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class AnswerWriter:
    """Writes a prompt and an answer as the model reads them; the last token is always the one that ends the answer.

    Attributes:
        template: the model's chat template; None writes plain text, the prompt and behind it the answer.
    """

    loaded: LoadedModel
    template: Template | None

    @classmethod
    def of(cls, loaded: LoadedModel) -> "AnswerWriter":
        """With the model's own template, or ChatML where its tokenizer has the markers, or none."""
        if loaded.template is not None:
            return cls(loaded=loaded, template=loaded.template)
        marked = {CHATML.start, CHATML.end} <= loaded.tokenizer.special.keys()
        return cls(loaded=loaded, template=CHATML if marked else None)

    def write(self, example: JudgedAnswers, answer: str, *, finished: bool = True) -> Marked:
        """Ids, and which of them are the answer: its own tokens and its end.

        Args:
            finished: the answer ended by itself; one that was cut off has no end.

        Raises:
            UserError: the conversation can't be written (it is named by file and line).
        """
        tokenizer = self.loaded.tokenizer
        if self.template is None:
            *before, last = example.messages
            if before or last["role"] != "user":
                raise UserError(
                    f"{example.source}: {self.loaded.run} has no chat template to write a conversation by",
                    expected="a prompt that is a plain text",
                )
            prompt = self.loaded.prompt_ids(last["content"])
            spoken = [*tokenizer.encode(answer), *self.loaded.stop_ids[: int(finished)]]
            return [*prompt, *spoken], [False] * len(prompt) + [True] * len(spoken)
        try:
            rendered = self.template.render(tokenizer, [*example.messages, {"role": "assistant", "content": answer}])
        except UserError as error:
            raise UserError(
                f"{example.source}: {error.what}", expected=error.expected, got=error.got, fix=error.fix
            ) from error
        if True not in rendered.mask:
            raise UserError(f"{example.source}: the chat template shows no answer to learn")
        end = len(rendered.mask) - rendered.mask[::-1].index(True)
        start = end
        while start and rendered.mask[start - 1]:  # earlier answers of the conversation are given, not judged
            start -= 1
        end -= not finished
        return rendered.ids[:end], [False] * start + [True] * (end - start)


@dataclass(frozen=True)
class WrittenAnswers:
    """A prompt with all its answers as tokens.

    Attributes:
        texts: for each answer the ids of prompt and answer, and the answer's mask.
    """

    example: JudgedAnswers
    texts: tuple[Marked, ...]


@dataclass(frozen=True)
class JudgedData:
    """The examples of a file, split, written and short enough.

    Attributes:
        parts: ``train``, ``validation`` and ``test``; the first is never empty.
    """

    parts: Mapping[str, Sequence[WrittenAnswers]]
    form: Form


def judged_data(
    spec: FinetuneSpec, loaded: LoadedModel, forms: Sequence[Form], out: Path, note: Callable[[str], Any]
) -> JudgedData:
    """Reads, splits by prompt (into ``split.json``) and writes the judged answers of a training.

    Args:
        note: told what is worth knowing: counts of what was left out and why, a model without a template.

    Raises:
        UserError: see `read_judged_answers`, or nothing is left to learn from.
    """
    file = read_judged_answers(Path(spec.data), forms)
    note(f"{len(file.examples):,} judged prompts in the form {file.form}")
    if file.equal:
        note(f"left out, as both answers are the same text: {file.equal:,} pairs")
    if file.unused:
        note(f"fields that are not used: {', '.join(f'{name} ({count:,}×)' for name, count in file.unused.items())}")
    writer = AnswerWriter.of(loaded)
    if writer.template is None:
        note(f"the model has no chat template: {len(file.examples):,} prompts are read as plain text")
    if not writer.template and not loaded.stop_ids:
        note("the model has no token that ends a text: answers end without one")
    limit = min(spec.context_length or loaded.decoder.context_length, loaded.decoder.context_length)
    written = [WrittenAnswers(each, tuple(writer.write(each, text) for text in each.answers)) for each in file.examples]
    fitting = [each for each in written if max(len(ids) for ids, _ in each.texts) <= limit]
    if len(fitting) < len(written):
        longest = max(len(ids) for each in written for ids, _ in each.texts)
        note(
            f"left out, longer than {limit:,} tokens (the longest has {longest:,}): "
            f"{len(written) - len(fitting):,} of {len(written):,} prompts"
        )
    if not fitting:
        raise UserError(
            "every judged answer would be cut off", expected=f"at most {limit:,} tokens", got=f"{len(written):,} longer"
        )
    kept = {id(each.example): each for each in fitting}
    shares = (1 - spec.validation - spec.test, spec.validation, spec.test)
    split = split_conversations([each.example for each in fitting], shares=shares, seed=spec.seed)
    parts = {name: [kept[id(each)] for each in group] for name, group in zip(PARTS, split, strict=True)}
    sources = {name: [each.example.source for each in group] for name, group in parts.items()}
    write_text(out / "split.json", json.dumps(sources))
    if not parts["train"]:
        raise UserError("no prompt is left to train on", fix="Give more, or smaller --validation and --test")
    return JudgedData(parts, file.form)
