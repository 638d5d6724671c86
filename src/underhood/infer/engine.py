"""The engine: many requests, one model, one step at a time.

What a step is made of is decided in `scheduler`, where keys and values lie in `blocks`, attention over them in
`blocked`; `reader` runs the model, and `choosing` says which token comes next. Here it is put together.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.infer.block_manager import BlockManager
from underhood.infer.drafts import DrafterPool, check_draft
from underhood.infer.embedding import EmbeddingJob
from underhood.infer.engine_spec import EngineSpec, EngineStats
from underhood.infer.generate import check_prompts, room_for
from underhood.infer.memory import count_blocks
from underhood.infer.model_runner import ModelRunner
from underhood.infer.request import Finish, OutputChunk, Request, WrittenToken
from underhood.infer.request_handle import EngineStopped, QueueFull, RequestHandle
from underhood.infer.request_output import RequestChoice, RequestOutput
from underhood.infer.sampler import SequenceSampler, check_request, sample_all
from underhood.infer.scheduler import DRAFT_SEQUENCES_MAX, ScheduledBatch, Scheduler, Sequence
from underhood.infer.sliding_window_cache import window_of
from underhood.models.decoder import Decoder

log = logging.getLogger(__name__)

FAILURES_TO_GIVE_UP = 3
"""Passes in a row that fail for one text alone after which the model, not the text, is taken to be at fault."""


class Engine:
    """Continues many texts at once with one model.

    `submit` may be called from any thread at any time; `step` moves every text on by one token. An `EngineThread` runs
    the steps of a server's engine; without one, whoever reads a handle's chunks runs them.

    Args:
        draft: a smaller model with the same vocabulary, which guesses in place of a look at what the text repeats.

    Attributes:
        failure: what the model failed with for good; the engine then takes no more requests.
        threaded: an `EngineThread` runs the steps.

    Raises:
        UserError: the model has a layer that can't be cached, or there is too little memory; the draft has another
            vocabulary.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, spec: EngineSpec | None = None, draft: Decoder | None = None
    ):
        spec = spec or EngineSpec()
        self.model, self.tokenizer, self.spec = model.eval(), tokenizer, spec
        self.failure: Exception | None = None
        self.threaded = False
        if draft is not None:
            check_draft(model, draft)
        self.drafts = DrafterPool(draft, DRAFT_SEQUENCES_MAX, spec.draft_tokens) if spec.draft_tokens else None
        blocks = count_blocks(model, spec)
        self.runner = ModelRunner(model, blocks, spec)
        self.block_manager = BlockManager(blocks, spec.block)
        self.scheduler = Scheduler(
            self.block_manager,
            max_sequences=spec.max_sequences,
            max_batched_tokens=spec.max_batched_tokens,
            share=spec.prefix_caching,
            window=window_of(model),
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
        self._lock = threading.RLock()  # whoever holds it runs the model and may change what lies above
        self._gate = threading.Lock()  # whoever holds it may add to, or close, what lies below
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
        output = self._answer(handle)
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
                job.go_on(self.model, self.spec.max_batched_tokens)
                if job.result.done():
                    self._embeddings.popleft()
                worked = True
            batch = self.scheduler.schedule(None if self.drafts is None else self.drafts.propose)
            if not batch.scheduled:
                return worked
            start = time.perf_counter()
            self.runner.copy(batch)
            for part, logits_NV in self._read(batch):
                self._go_on(part, logits_NV)
            self._counts["steps"] += 1
            self._counts["microseconds"] += int((time.perf_counter() - start) * 1e6)
            return True

    def embed(self, rows: list[list[int]]) -> Tensor:
        """The mean of the last layer's normalised output over each row's tokens, (n, D) in fp32.

        Raises:
            UserError: a row is empty or longer than the context.
            EngineStopped: the engine has ended.
        """
        check_prompts(self.model, rows, 0)
        job = EmbeddingJob(rows)
        with self._gate:
            self._check_open()
            self._embeddings.append(job)
        self.wake()
        while not self.threaded and not job.result.done():
            self.step()
        return job.result.result()

    def stats(self) -> EngineStats:
        """A snapshot; may be taken from any thread."""
        counts = self._counts
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting) + len(self._inbox),
            blocks_used=self.block_manager.used,
            blocks_cached=self.block_manager.cached,
            blocks_total=self.block_manager.total,
            prompt_tokens=counts["prompt_tokens"],
            cached_tokens=counts["cached_tokens"],
            completion_tokens=counts["completion_tokens"],
            prefix_hits=counts["prefix_hits"],
            preemptions=self.scheduler.preemptions,
            draft_tokens=counts["draft_tokens"],
            accepted_tokens=counts["accepted_tokens"],
            steps=counts["steps"],
            step_seconds=counts["microseconds"] / 1e6,
            failures=counts["failures"],
            finished=dict(self._finished),
        )

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
        limit = self._limit(request)
        if not self.scheduler.fits(limit):
            raise UserError(
                "the text may grow longer than the cache has room for",
                expected=f"at most {self.block_manager.total * self.block_manager.size} tokens",
                got=str(limit),
                fix="Ask for fewer tokens, or give the engine more memory",
            )

    def _limit(self, request: Request) -> int:
        return len(request.prompt) + room_for(self.model, len(request.prompt), request.max_new_tokens)

    def _answer(self, handle: RequestHandle) -> RequestOutput:
        request = handle.request
        output = RequestOutput(handle, lambda finish: self._finished.update((finish,)))
        length, limit = len(request.prompt), self._limit(request)
        for number in range(request.best_of or request.n):
            parent = output.choices[0].sequence if number else None
            sequence = Sequence(
                tokens=list(request.prompt), prompt=length, limit=limit, cache_salt=request.cache_salt, parent=parent
            )
            sampler = SequenceSampler(request, number, self.tokenizer, room=limit - length)
            output.choices.append(RequestChoice(output, sequence, sampler))
        return output

    def _on_cancel(self, handle: RequestHandle) -> None:
        self._cancelled.append(handle)
        self.wake()

    def _arrivals_and_departures(self) -> bool:
        """Takes in what has been submitted and drops what has been cancelled or is late; whether there was any."""
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
        asked: list[tuple[RequestChoice, int, tuple[int, ...]]] = []  # choice, its row of logits, its draft
        row = 0
        for item in batch.scheduled:
            if item.last:
                asked.append((self._choices[item.sequence], row, item.draft))
                for fork in self._forks.pop(item.sequence, ()):
                    if fork in self._choices and self.scheduler.fork(item.sequence, fork):
                        asked.append((self._choices[fork], row, ()))
                self._counts["draft_tokens"] += len(item.draft)
                row += 1 + len(item.draft)
        while asked:
            choices, rows, drafts = zip(*asked, strict=True)
            scores_NV = logits_NV if [*rows] == [*range(len(logits_NV))] else logits_NV[[*rows]]
            asked = []
            for choice, row, draft, token in zip(
                choices, rows, drafts, self._choose(scores_NV, [*choices]), strict=True
            ):
                self._take(choice, token)
                # An accepted draft token has been read already, so its logits are in the next row.
                if draft and choice.sequence.state == "running" and choice.sequence.tokens[-1] == draft[0]:
                    self.scheduler.count_read(choice.sequence, 1)
                    self._counts["accepted_tokens"] += 1
                    asked.append((choice, row + 1, draft[1:]))

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
