"""A stage filmed while it trains: what the model writes after a fixed prompt, and small snapshots of its weights.

Samples become `sample` events of the log. Snapshots are checkpoints of the weights alone, in float16, at steps that
grow by a constant factor, so that the first moments, when most changes, are as well covered as the rest. Both only
look: the training is the same, bit for bit, without them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.core.runlog import RunLog
from underhood.data.shards import TokenShards
from underhood.infer.generate import generate
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.models.base import BuiltModel, parameter_count
from underhood.recipes.training_data import SHOWCASE, StageData
from underhood.retrieve.retriever import Retriever
from underhood.text.chat import Template

SAMPLES = 7
"""Samples of a stage beside the one before its first step: about one every 15 %."""

SAMPLE_TOKENS = 36
"""Tokens of a sample at most."""

SAMPLE_COST = 0.015
"""Share of a stage's planned time that samples may take; where they would take more, there are fewer."""

SHORT_STAGE = 10.0
"""Seconds of planned time below which a stage has one sample, at its end."""

SNAPSHOT_BYTES = 256_000_000
"""Disk that a stage's snapshots may take; larger models have fewer of them, or none."""

LONG_STAGE = 30.0
"""Seconds of planned time from which a stage has all its snapshots; a shorter one has half as many."""

CONTINUING = SamplingSpec(temperature=0.7, min_p=0.05, seed=0)
"""How text is continued: drawn, since the likeliest token of a model that knows nothing repeats itself for ever."""

_SIGNATURE = re.compile(r"(?:def |class )?\w[\w.]*\([^()\n]{1,40}\):?")


@dataclass(frozen=True)
class FilmPrompt:
    """A prompt in words, as the tokens that the model reads, and how its answer is drawn."""

    text: str
    ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    sampling: SamplingSpec


def text_prompt(held_out: TokenShards, tokenizer: Tokenizer) -> FilmPrompt:
    """The beginning of an unseen text: a signature where the text has such lines, else a document's first words."""
    texts = [
        tokenizer.decode_bytes([id for id in held_out.document(number).tolist() if id != held_out.eot_id])
        for number in range(min(len(held_out), 200))
    ]
    lines = [line for text in texts for line in text.decode("utf-8", "replace").splitlines()]
    signature = next((line for line in lines if _SIGNATURE.fullmatch(line)), None)
    if signature is not None and sum(bool(_SIGNATURE.fullmatch(line)) for line in lines) >= len(lines) / 50:
        start = f"{signature}\n"
    else:
        words = re.findall(r"\S+\s*", next((line for line in lines if len(line.split()) > 3), " ".join(lines)))
        start = "".join(words[:4]).rstrip()
    ids = (held_out.eot_id, *tokenizer.encode(start))
    return FilmPrompt(start, ids, (held_out.eot_id,), CONTINUING)


def question_prompt(
    data: StageData, retriever: Retriever | None, tokenizer: Tokenizer, template: Template
) -> FilmPrompt | None:
    """A question about the text with the passages that are found for it; None where the data has no questions."""
    first = [question for question in data.grounded if question.kind == SHOWCASE]
    questions = [*first, *data.grounded, *data.answers]
    if not questions:
        return None
    text = questions[0].prompt
    messages: Sequence[Any] = [{"role": "user", "content": text}]
    if retriever is not None and data.grounded:
        messages = retriever.prepare(messages, quote=False).messages
    ids = template.render(tokenizer, messages, add_generation_prompt=True).ids
    return FilmPrompt(text, tuple(ids), tuple(template.stop_ids(tokenizer)), GREEDY)


def snapshot_steps(steps: int, count: int, *, fresh: bool) -> list[int]:
    """At most `count` steps before the last one, each about the same multiple of the one before.

    Args:
        fresh: whether the model begins untrained: then the first is 0, otherwise the model of the stage before.
    """
    last = max(steps - 1, 1)
    grown = [round(last ** (number / max(count - 1, 1))) for number in range(count)]
    return sorted({step for step in ([0] if fresh else []) + grown if step < steps})


class Film:
    """Watches the training of one stage (the `watch` of `train.loop.fit`).

    Args:
        prompt: what the model goes on from; None takes no samples.
        seconds: planned for the stage.
        snapshots: folder for the snapshots, and the steps at which they are taken; None takes none.
        facts: the state of the stage's checkpoints, so that a snapshot can be loaded like one.
        clock: seconds, for the limit on the samples' cost.
    """

    def __init__(
        self,
        model: BuiltModel,
        stage: str,
        tokenizer: Tokenizer,
        log: RunLog,
        *,
        prompt: FilmPrompt | None,
        seconds: float,
        snapshots: tuple[Path, Sequence[int]] | None = None,
        facts: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.model, self.stage, self.tokenizer, self.log = model, stage, tokenizer, log
        self.prompt, self.seconds, self.facts, self.clock = prompt, seconds, dict(facts or {}), clock
        self.snapshots = snapshots
        self.samples = SAMPLES
        self._share: float | None = None

    def __call__(self, step: int, share: float) -> None:
        begun = self._share is None
        before, self._share = self._share or 0.0, share
        short = self.seconds < SHORT_STAGE
        prompt = self.prompt
        if prompt is not None and (share >= 1 or (not short and (begun or self._due(before, share)))):
            if begun:  # the very first token takes what later ones do not
                self._write(prompt, 1)
            seconds = self._sample(prompt, step, share)
            if begun:  # how many more, by what the first one took
                self.samples = max(1, min(SAMPLES, int(SAMPLE_COST * self.seconds / max(seconds, 1e-9))))
        if self.snapshots is not None and share < 1 and step in self.snapshots[1]:
            self._snapshot(self.snapshots[0], step)

    def _due(self, before: float, share: float) -> bool:
        return int(share * self.samples) > int(before * self.samples)

    def _sample(self, prompt: FilmPrompt, step: int, share: float) -> float:
        """Takes a sample; returns the seconds that it took."""
        started = self.clock()
        ids = self._write(prompt, SAMPLE_TOKENS)
        seconds = self.clock() - started
        if ids is not None:
            facts = {"share": round(share, 4), "prompt": prompt.text, "text": self.tokenizer.decode(ids)}
            self.log.event(self.stage, "sample", step=step, **facts, seconds=round(seconds, 4))
        return seconds

    def _write(self, prompt: FilmPrompt, tokens: int) -> Sequence[int] | None:
        context = self.model.context_length or 1 << 20
        limit = max(context - SAMPLE_TOKENS, context // 2, 1)
        try:
            [written] = generate(
                self.model,
                [prompt.ids[-limit:]],
                max_new_tokens=tokens,
                sampling=prompt.sampling,
                stop_ids=prompt.stop_ids,
            )
        except UserError:  # a context too short for any prompt
            self.prompt = None
            return None
        return written.ids

    def _snapshot(self, folder: Path, step: int) -> None:
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in module_tensors(self.model).items()
        }
        facts = self.facts | {"stage": self.stage, "step": step, "snapshot": True}
        write_checkpoint(folder, step, {"model": tensors}, facts, keep=1 << 20)


def planned_snapshots(model: torch.nn.Module, steps: int, seconds: float, *, fresh: bool) -> list[int]:
    """The steps after which a stage keeps a snapshot: six or so for a fresh model, three for a later stage."""
    count = (6 if fresh else 3) if seconds >= LONG_STAGE else (3 if fresh else 1)
    affordable = SNAPSHOT_BYTES // max(2 * parameter_count(model), 1)
    return snapshot_steps(steps, count, fresh=fresh)[: int(affordable)]
