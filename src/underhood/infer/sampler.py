"""From the scores of a step to what every choice writes next, each by its own request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.protocols import Tokenizer
from underhood.infer.penalties import Penalties
from underhood.infer.request import Finish, OutputChunk, Request, WrittenToken
from underhood.infer.sample import SamplingSpec, choose, distribution, draw, uniforms
from underhood.infer.stopping import Writer
from underhood.kernels import elementwise, jit


class SequenceSampler:
    """One choice of a request while it is written: its draws, penalties, grammar, stop strings and text.

    A step of an engine is ``sample_all(logits, samplers)`` and then ``push`` of each token to its own sampler. What is
    written depends on the request, the choice's number and the scores alone, never on other texts in the step.

    Attributes:
        tokens: what has been written, stop tokens left out.
        finish: why it ended; None while it goes on. A request that has no room for a token has ended from the start.
        stop_id: the stop token that ended it, or None.

    Args:
        tokenizer: turns tokens into text; None where only tokens matter (no stop strings, no grammar then).
        room: how many tokens there is room for, if fewer than `max_new_tokens`; see `request.room_for`.

    Raises:
        UserError: the tokenizer can't write what the grammar wants.
    """

    def __init__(self, request: Request, choice: int, tokenizer: Tokenizer | None, *, room: int | None = None):
        if tokenizer is None and (request.stop or request.grammar):
            raise ValueError("stop strings and grammars need a tokenizer")
        self.request, self.choice = request, choice
        self.tokens: list[WrittenToken] = []
        self._room = request.max_new_tokens if room is None else min(room, request.max_new_tokens)
        self.finish: Finish | None = "length" if self._room < 1 else None
        self.stop_id: int | None = None
        self._draws = uniforms(request.sampling.seed, choice)
        self._penalties = Penalties(request.sampling, request.prompt) if request.sampling.reshapes else None
        self._writer = None if tokenizer is None else Writer(tokenizer, request.stop)
        self._matcher = None if request.grammar is None or tokenizer is None else request.grammar.matcher(tokenizer)
        if self._matcher is not None and self._matcher.complete:
            self.finish = "stop"  # the grammar admits the empty text only

    @property
    def plain(self) -> bool:
        """Whether the model's own scores are drawn from: no penalty, no bias, no grammar."""
        return self._penalties is None and self._matcher is None

    @property
    def room(self) -> int:
        """How many more tokens it may take."""
        return self._room - len(self.tokens)

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of what has been written, the measure of best-of; −∞ for nothing."""
        if not self.tokens:
            return float("-inf")
        return sum(token.logprob for token in self.tokens) / len(self.tokens)

    def reshape(self, logits_V: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
        """The scores after penalties, bias and the grammar's mask; the tensor given stays as it is."""
        if self._penalties is not None:
            logits_V = self._penalties(logits_V)
        if self._matcher is not None:
            logits_V = self._matcher.mask(logits_V, self.request.stop_ids)
        return logits_V

    def draw(self) -> float:
        """The choice's next draw from [0, 1)."""
        return next(self._draws)

    def push(self, token: WrittenToken) -> OutputChunk:
        """Takes the token that was chosen; returns what is new, and the end where it is one."""
        if self.finish is not None:
            raise ValueError("this choice has ended")
        if self._matcher is not None and self._matcher.stuck:
            return self.end("stop" if self._matcher.accepts else "error")
        if token.id in self.request.stop_ids:
            self.stop_id = token.id
            end = self.end("stop")
            if not self.request.include_stop_token:
                return end
            self.tokens.append(token)
            return replace(end, tokens=(token,))
        self.tokens.append(token)
        if self._penalties is not None:
            self._penalties.push(token.id)
        if self._matcher is not None:
            self._matcher.push(token.id)
        text = "" if self._writer is None else self._writer.push(token.id)
        chunk = OutputChunk(choice=self.choice, tokens=(token,), text=text)
        if self._writer is not None and self._writer.stopped:
            self.finish = "stop"
            return replace(chunk, finish="stop")
        complete = self._matcher is not None and self._matcher.complete
        if complete or len(self.tokens) == self._room:
            last = self.end("stop" if complete else "length")
            return replace(chunk, text=text + last.text, finish=self.finish)
        return chunk

    def end(self, finish: Finish) -> OutputChunk:
        """Ends the text here; the chunk holds what was held back."""
        text = "" if self._writer is None else self._writer.finish()
        # The character that was never completed may, as U+FFFD, have completed a stop string.
        self.finish = "stop" if self._writer is not None and self._writer.stopped else finish
        return OutputChunk(choice=self.choice, text=text, finish=self.finish)


@torch.inference_mode()
def sample_all(logits_NV: Float[Tensor, "N V"], samplers: Sequence[SequenceSampler]) -> list[WrittenToken]:
    """The next token of every choice, the stop token included; `SequenceSampler.push` comes next.

    Rows that are drawn alike go together. Row i depends on sampler i alone.

    Args:
        logits_NV: the model's own scores, one row per sampler.
    """
    if len(samplers) != logits_NV.shape[0]:
        raise ValueError(f"{len(samplers)} samplers for {logits_NV.shape[0]} rows of scores")
    if not samplers:
        return []
    device = logits_NV.device
    scores_NV = logits_NV
    shaped = [row for row, sampler in enumerate(samplers) if not sampler.plain]
    if shaped:
        scores_NV = logits_NV.clone()
        for row in shaped:
            scores_NV[row] = samplers[row].reshape(logits_NV[row])
    groups: dict[SamplingSpec, list[int]] = defaultdict(list)
    for row, sampler in enumerate(samplers):
        groups[_kind(sampler.request.sampling)].append(row)
    tops = [sampler.request.logprobs or 0 for sampler in samplers]
    if (
        not any(tops)
        and not shaped
        and not any(sampler.request.sampling_logprobs for sampler in samplers)
        and all(spec.greedy for spec in groups)
        and logits_NV.is_contiguous()
        and jit.runs_compiled(logits_NV)
    ):
        return _likeliest(logits_NV)
    chosen_N = torch.empty(len(samplers), dtype=torch.int64, device=device)
    sampling_logprobs: list[float | None] = [None] * len(samplers)
    for spec, rows in groups.items():
        uniform_B = None if spec.greedy else torch.tensor([samplers[row].draw() for row in rows], device=device)
        group_BV = scores_NV if len(groups) == 1 else scores_NV[torch.tensor(rows, device=device)]
        if any(samplers[row].request.sampling_logprobs for row in rows):
            chances_BV = distribution(group_BV, spec)
            chosen_B = choose(group_BV, spec) if uniform_B is None else draw(chances_BV, uniform_B)
            chances_B1 = chances_BV.gather(-1, chosen_B[:, None])
            for row, logprob in zip(rows, chances_B1[:, 0].log().tolist(), strict=True):
                sampling_logprobs[row] = logprob if samplers[row].request.sampling_logprobs else None
        else:
            chosen_B = choose(group_BV, spec, uniform_B)
        chosen_N[torch.tensor(rows, device=device)] = chosen_B
    logprobs_NV = logits_NV.float().log_softmax(dim=-1)
    logprob_N = logprobs_NV.gather(-1, chosen_N[:, None])[:, 0]
    columns = (chosen_N.tolist(), logprob_N.tolist(), _alternatives(logprobs_NV, tops), sampling_logprobs)
    return [
        WrittenToken(id=id, logprob=logprob, top=top, sampling_logprob=sampling_logprob)
        for id, logprob, top, sampling_logprob in zip(*columns, strict=True)
    ]


def _likeliest(logits_NV: Tensor) -> list[WrittenToken]:
    """Greedy choices, and nothing written but those: scores are many, and this is done for every token of a text."""
    count = len(logits_NV)
    best_N, log_sum_N = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    scores_NV = logits_NV.numpy()
    jit.run_parallel(elementwise.argmax_and_logsumexp, scores_NV, best_N, log_sum_N)
    logprob_N = scores_NV[np.arange(count), best_N] - log_sum_N
    return [
        WrittenToken(id=id, logprob=logprob) for id, logprob in zip(best_N.tolist(), logprob_N.tolist(), strict=True)
    ]


def best(samplers: Sequence[SequenceSampler], n: int) -> list[SequenceSampler]:
    """The `n` choices with the highest mean log-probability, best first (best-of)."""
    return sorted(samplers, key=lambda sampler: -sampler.mean_logprob)[:n]


def _kind(spec: SamplingSpec) -> SamplingSpec:
    """What two requests must share to be drawn together: temperature and truncation."""
    if spec.greedy:
        return SamplingSpec(temperature=0.0)
    return SamplingSpec(temperature=spec.temperature, top_k=spec.top_k, top_p=spec.top_p, min_p=spec.min_p)


def _alternatives(logprobs_NV: Tensor, wanted: Collection[int]) -> list[tuple[tuple[int, float], ...]]:
    """Of every row the likeliest tokens with their log-probabilities, as many as wanted."""
    most = max(wanted)
    if most == 0:
        return [()] * len(wanted)
    best_NK = logprobs_NV.topk(min(most, logprobs_NV.shape[-1]), dim=-1)
    rows = zip(best_NK.indices.tolist(), best_NK.values.tolist(), wanted, strict=True)
    return [tuple(zip(ids[:count], values[:count], strict=True)) for ids, values, count in rows]
