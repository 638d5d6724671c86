"""Inference engine with continuous batching: scheduler, model runner and samplers, put together (Kwon et al. 2023)."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from itertools import count

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import HiddenStateModel, LanguageModel, Tokenizer
from underhood.infer.block_manager import BlockManager
from underhood.infer.decode import sample_verified
from underhood.infer.drafts import DrafterPool, check_draft
from underhood.infer.embedding import EmbeddingJob
from underhood.infer.engine_spec import EngineSpec, EngineStats
from underhood.infer.memory import count_blocks
from underhood.infer.model_runner import model_runner
from underhood.infer.request import Finish, OutputChunk, Request, WrittenToken, check_prompts, check_request, room_for
from underhood.infer.request_handle import EngineStopped, QueueFull, RequestHandle
from underhood.infer.request_output import RequestChoice, RequestOutput
from underhood.infer.rollout import Rollout, collect_rollout
from underhood.infer.sample import PURE_SAMPLING, SamplingSpec
from underhood.infer.sampler import sample_all
from underhood.infer.scheduler import DRAFT_SEQUENCES_MAX, ScheduledBatch, Scheduler, Sequence
from underhood.infer.sliding_window_cache import window_of
from underhood.infer.weights import check_same_shape, load_weights

log = logging.getLogger(__name__)

FAILURES_TO_GIVE_UP = 3
"""Passes in a row that fail for one text alone after which the model, not the text, is taken to be at fault."""


class Engine:
    """Continues many texts at once with one model.

    `submit` may be called from any thread; `step` runs one forward pass. In a server an `EngineThread` runs the steps;
    without one, whoever reads a handle's chunks runs them.

    Args:
        draft: a smaller model with the same vocabulary, which guesses in place of a look at what the text repeats.

    Attributes:
        failure: what the model failed with for good; the engine then takes no more requests.
        threaded: an `EngineThread` runs the steps.

    Raises:
        UserError: there is too little memory for the KV cache, or the draft has another vocabulary.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        spec: EngineSpec | None = None,
        draft: LanguageModel | None = None,
    ):
        spec = spec or EngineSpec()
        self.model, self.tokenizer, self.spec = model, tokenizer, spec
        if isinstance(model, nn.Module):
            model.eval()
        self.failure: Exception | None = None
        self.threaded = False
        if draft is not None:
            check_draft(model, draft)
        self.drafts = DrafterPool(draft, DRAFT_SEQUENCES_MAX, spec.draft_tokens) if spec.draft_tokens else None
        blocks = count_blocks(model, spec)
        self.runner = model_runner(model, blocks, spec)
        self.block_manager = BlockManager(blocks, spec.block)
        self.scheduler = Scheduler(
            self.block_manager,
            max_sequences=spec.max_sequences,
            max_batched_tokens=spec.max_batched_tokens,
            share=spec.prefix_caching and self.runner.paged,
            window=window_of(model) if self.runner.paged else None,
        )
        self._choices: dict[Sequence, RequestChoice] = {}
        self._forks: dict[Sequence, list[Sequence]] = {}
        self._outputs: dict[RequestHandle, RequestOutput] = {}
        self._deadlines: list[tuple[float, int, RequestHandle]] = []
        self._numbers = count()
        self._failures_in_a_row = 0
        self._counts: Counter[str] = Counter()
        self._finished: Counter[Finish] = Counter()
        self._stopped = False
        self._lock = threading.RLock()  # whoever holds it runs the model and may change the fields above
        self._gate = threading.Lock()  # whoever holds it may add to, or close, the fields below
        self._inbox: deque[RequestOutput] = deque()
        self._cancelled: deque[RequestHandle] = deque()
        self._embeddings: deque[EmbeddingJob] = deque()
        self._work = threading.Event()

    def submit(self, request: Request) -> RequestHandle:
        """Takes a request.

        Raises:
            UserError: the model can't continue such a prompt, or the memory could never hold it.
            QueueFull: too many are waiting.
            EngineStopped: the engine is shutting down, or has failed.
        """
        self._check(request)
        handle = RequestHandle(request, on_cancel=self._on_cancel, drive=None if self.threaded else self.step)
        output = RequestOutput.of(handle, self._limit(request), self.tokenizer, self._finished)
        with self._gate:
            self._check_open()
            waiting = len(self._inbox) + len(self.scheduler.waiting)
            if waiting >= self.spec.max_waiting:
                raise QueueFull(f"{waiting} texts are waiting already")
            self._inbox.append(output)
        self.wake()
        return handle

    def step(self) -> bool:
        """Moves everything on by one pass through the model; False when there was nothing to do."""
        with self._lock, torch.inference_mode():
            worked = self._arrivals_and_departures()
            if self._embeddings:
                job = self._embeddings[0]
                assert isinstance(self.model, HiddenStateModel), "`embed` has checked it"
                job.go_on(self.model, self.spec.max_batched_tokens)
                if job.result.done():
                    self._embeddings.popleft()
                worked = True
            batch = self.scheduler.schedule(None if self.drafts is None else self.drafts.propose)
            if not batch.scheduled:
                return worked
            start = time.perf_counter()
            self.runner.copy(batch)
            for items, logits_NV in self._read(batch):
                self._go_on(items, logits_NV)
            self._counts["steps"] += 1
            self._counts["microseconds"] += int((time.perf_counter() - start) * 1e6)
            return True

    def embed(self, rows: list[list[int]]) -> Tensor:
        """Mean-pooled hidden states of each row, (n, D) in fp32.

        Raises:
            UserError: a row is empty or longer than the context.
            EngineStopped: the engine has ended.
        """
        if not isinstance(self.model, HiddenStateModel):
            raise UserError("this model has no hidden states to embed with", expected="a decoder")
        check_prompts(self.model, rows, 0)
        job = EmbeddingJob(rows)
        with self._gate:
            self._check_open()
            self._embeddings.append(job)
        self.wake()
        while not self.threaded and not job.result.done():
            self.step()
        return job.result.result()

    def update_weights(self, source: LanguageModel | Mapping[str, Tensor]) -> None:
        """Goes on with new weights. The prefix cache is dropped; running sequences are read again from their start.

        Args:
            source: a model of the same architecture, or a state dict for the engine's own (not fused or quantised) one.

        Raises:
            UserError: the state dict or the model does not fit.
        """
        with self._lock:
            if isinstance(source, Mapping):
                load_weights(self.model, source)
            else:
                check_same_shape(self.model, source)
                self.model = source.eval() if isinstance(source, nn.Module) else source
            self.runner.use(self.model)
            self.scheduler.recompute_all()
            self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        """Drops what the prefix cache holds; sequences that run go on, and are found by no other sequence."""
        with self._lock:
            self.block_manager.reset_prefix_cache()
            for sequence in self.scheduler.running:
                sequence.link = None

    def rollout(
        self,
        prompts: list[list[int]],
        n: int = 1,
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSpec = PURE_SAMPLING,
        stop_ids: Collection[int] = (),
    ) -> Rollout:
        """`n` sampled continuations of every prompt, with the log-probabilities that reinforcement learning needs.

        A prompt is prefilled once for all its continuations. A sampled stop token is part of the continuation.

        Raises:
            UserError: the model can't continue a prompt.
        """
        return collect_rollout(self, prompts, n, max_new_tokens, sampling, frozenset(stop_ids))

    def stats(self) -> EngineStats:
        """A snapshot; may be taken from any thread."""
        return EngineStats.of(self.scheduler, len(self._inbox), self._counts, self._finished)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not (self._outputs or self._inbox or self._embeddings)

    def stop_accepting(self) -> None:
        """From now on `submit` and `embed` raise `EngineStopped`."""
        with self._gate:
            self._stopped = True

    def cancel_all(self) -> None:
        """Ends everything that was asked as cancelled."""
        self._end_all("cancelled", None)

    def fail(self, error: Exception) -> None:
        """Gives up for good: everything that was asked ends with this error."""
        with self._gate:
            self.failure = error
        self._end_all("error", error)

    def wake(self) -> None:
        """Tells the thread that waits for work to look."""
        self._work.set()

    def wait_for_work(self, timeout: float = 1.0) -> None:
        """Sleeps until there is something to do, or `timeout` seconds."""
        self._work.wait(timeout)
        self._work.clear()

    def _check_open(self) -> None:
        if self._stopped or self.failure is not None:
            raise EngineStopped("the engine takes no more requests") from self.failure

    def _check(self, request: Request) -> None:
        check_prompts(self.model, [request.prompt], request.max_new_tokens)
        check_request(request, self.model.vocab_size)
        self.scheduler.check_fits(self._limit(request))

    def _limit(self, request: Request) -> int:
        return len(request.prompt) + room_for(self.model, len(request.prompt), request.max_new_tokens)

    def _on_cancel(self, handle: RequestHandle) -> None:
        self._cancelled.append(handle)
        self.wake()

    def _arrivals_and_departures(self) -> bool:
        """Takes in what has been submitted, drops what is cancelled or late; whether there was any."""
        worked = False
        while self._inbox:
            self._begin(self._inbox.popleft())
            worked = True
        while self._cancelled:
            self._drop(self._cancelled.popleft(), "cancelled")
            worked = True
        while self._deadlines and self._deadlines[0][0] <= time.monotonic():
            self._drop(heapq.heappop(self._deadlines)[2], "deadline")
            worked = True
        return worked

    def _begin(self, output: RequestOutput) -> None:
        handle = output.handle
        self._outputs[handle] = output
        if handle.request.deadline is not None:
            heapq.heappush(self._deadlines, (handle.request.deadline, next(self._numbers), handle))
        parent, *forks = [choice.sequence for choice in output.choices]
        if forks:
            self._forks[parent] = forks
        for choice in output.choices:
            if choice.sampler.finish is None:
                self._choices[choice.sequence] = choice
                self.scheduler.add(choice.sequence)
            else:  # there is no room for a token
                self._put(choice, OutputChunk(choice=choice.sampler.choice, finish=choice.sampler.finish))

    def _drop(self, handle: RequestHandle, finish: Finish, error: Exception | None = None) -> None:
        output = self._outputs.get(handle)
        if output is None:
            return
        handle.error = error
        for choice in output.choices:
            if choice.sampler.finish is None:
                self._put(choice, choice.sampler.end(finish))

    def _end_all(self, finish: Finish, error: Exception | None) -> None:
        with self._lock:
            while self._inbox:
                self._begin(self._inbox.popleft())
            for handle in list(self._outputs):
                self._drop(handle, finish, error)
            while self._embeddings:
                self._embeddings.popleft().result.set_exception(error or EngineStopped("the engine has ended"))

    def _put(self, choice: RequestChoice, chunk: OutputChunk) -> None:
        """Hands a chunk on; with a finish, the choice and all it holds are gone."""
        if chunk.finish is not None:
            if self._choices.pop(choice.sequence, None) is not None:
                self.scheduler.end(choice.sequence)
                self.runner.release(choice.sequence)
                if self.drafts is not None:
                    self.drafts.release(choice.sequence)
            self._forks.pop(choice.sequence, None)
        output = choice.output
        output.put(choice, chunk)
        if output.handle.done:
            self._outputs.pop(output.handle, None)

    def _read(self, batch: ScheduledBatch) -> Iterator[tuple[ScheduledBatch, Tensor]]:
        """Runs the pass: scores (N, V) after the last token of each text that has been read to its end.

        If it fails, its texts are tried one at a time, so that one that breaks the model ends alone.
        """
        try:
            logits_NV = self.runner.read(batch)
        except Exception as error:
            self._counts["failures"] += 1
            if len(batch.scheduled) > 1:
                for item in batch.scheduled:
                    if item.sequence.state == "running":
                        yield from self._read(ScheduledBatch([item]))
                return
            log.exception("the model failed on a text")
            self._drop(self._choices[batch.scheduled[0].sequence].output.handle, "error", error)
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= FAILURES_TO_GIVE_UP:
                self.fail(error)
        else:
            self._failures_in_a_row = 0
            yield batch, logits_NV

    def _go_on(self, batch: ScheduledBatch, logits_NV: Tensor) -> None:
        """What has been read is in the cache; texts that have been read to their end get their next token."""
        self.scheduler.advance(batch)
        choices: list[RequestChoice] = []
        drafts: list[tuple[int, ...]] = []
        rows: list[int] = []  # of the logits of each choice and its draft
        row = 0
        for item in batch.scheduled:
            if item.last:
                width = 1 + len(item.draft)
                forks = [fork for fork in self._forks.pop(item.sequence, ()) if fork in self._choices]
                forks = [fork for fork in forks if self.scheduler.fork(item.sequence, fork)]
                choices += [self._choices[sequence] for sequence in (item.sequence, *forks)]
                drafts += [item.draft, *[()] * len(forks)]
                rows += [*range(row, row + width), *[row] * len(forks)]
                self._counts["draft_tokens"] += len(item.draft)
                row += width

        def take(number: int, token: WrittenToken | Exception) -> bool:
            self._take(choices[number], token)
            return choices[number].sequence.state == "running"

        def accept(number: int) -> None:
            self.scheduler.count_read(choices[number].sequence, 1)
            self._counts["accepted_tokens"] += 1

        logits_NV = logits_NV if rows == [*range(row)] else logits_NV[rows]
        sample_verified(logits_NV, choices, drafts, sample=self._choose, take=take, accept=accept)

    def _choose(self, logits_NV: Tensor, choices: list[RequestChoice]) -> list[WrittenToken | Exception]:
        try:
            return [*sample_all(logits_NV, [choice.sampler for choice in choices])]
        except Exception as error:
            if len(choices) == 1:
                return [error]
        return [self._choose(logits_NV[row : row + 1], [choice])[0] for row, choice in enumerate(choices)]

    def _take(self, choice: RequestChoice, token: WrittenToken | Exception) -> None:
        handle, sequence = choice.output.handle, choice.sequence
        if sequence.state == "done":
            return  # another choice of the same request has failed
        try:
            if isinstance(token, Exception):
                raise token
            chunk = choice.sampler.push(token)
        except Exception as error:
            self._drop(handle, "error", error)
            return
        if len(sequence.tokens) == sequence.prompt:
            self._count_beginning(choice)
        handle.usage.completion_tokens += 1
        self._counts["completion_tokens"] += 1
        sequence.tokens.append(token.id)
        self._put(choice, chunk)

    def _count_beginning(self, choice: RequestChoice) -> None:
        cached = choice.sequence.cached or 0
        if choice.sampler.choice == 0:
            choice.output.handle.usage.cached_tokens = cached
            self._counts["prompt_tokens"] += choice.sequence.prompt
            self._counts["cached_tokens"] += cached
            self._counts["prefix_hits"] += cached > 0
