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
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.infer.answer import Answer, Choice
from underhood.infer.blocks import BlockPool
from underhood.infer.choosing import Chooser, check_request, choose_all
from underhood.infer.drafts import Drafts, check_draft
from underhood.infer.embedding import EmbeddingJob
from underhood.infer.engine_spec import EngineSpec, EngineStats
from underhood.infer.generate import check_prompts, room_for
from underhood.infer.memory import count_blocks
from underhood.infer.reader import Reader
from underhood.infer.request import Finish, Piece, Request, WrittenToken
from underhood.infer.ring import window_of
from underhood.infer.scheduler import FEW, Plan, Scheduler, Stream
from underhood.infer.ticket import EngineStopped, QueueFull, Ticket
from underhood.models.decoder import Decoder

log = logging.getLogger(__name__)

FAILURES_TO_GIVE_UP = 3
"""Passes in a row that fail for one text alone after which the model, not the text, is taken to be at fault."""


class Engine:
    """Continues many texts at once with one model.

    `submit` may be called from any thread at any time; `step` moves every text on by one token. An `EngineThread` runs
    the steps of a server's engine; without one, whoever reads a ticket's pieces runs them.

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
        self.drafts = Drafts(draft, FEW, spec.guesses) if spec.guesses else None
        blocks = count_blocks(model, spec)
        self.reader = Reader(model, blocks, spec)
        self.pool = BlockPool(blocks, spec.block)
        self.scheduler = Scheduler(
            self.pool,
            max_running=spec.max_running,
            tokens_per_step=spec.tokens_per_step,
            share=spec.share_prefixes,
            window=window_of(model),
        )
        self._choices: dict[Stream, Choice] = {}
        self._followers: dict[Stream, list[Stream]] = {}
        self._answers: dict[Ticket, Answer] = {}
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._numbers = count()
        self._failures_in_a_row = 0
        self._counts: Counter[str] = Counter()
        self._finished: Counter[Finish] = Counter()
        self._stopped = False
        self._turn = threading.RLock()  # whoever holds it runs the model and may change what lies above
        self._gate = threading.Lock()  # whoever holds it may add to, or close, what lies below
        self._inbox: deque[Answer] = deque()
        self._cancelled: deque[Ticket] = deque()
        self._embeddings: deque[EmbeddingJob] = deque()
        self._work = threading.Event()

    def submit(self, request: Request) -> Ticket:
        """Takes a request.

        Raises:
            UserError: the model can't continue such a prompt, or the memory could never hold it.
            QueueFull: too many are waiting.
            EngineStopped: the engine is shutting down, or has failed.
        """
        self._check(request)
        ticket = Ticket(request, on_cancel=self._on_cancel, drive=None if self.threaded else self.step)
        answer = self._answer(ticket)
        with self._gate:
            self._check_open()
            waiting = len(self._inbox) + len(self.scheduler.waiting)
            if waiting >= self.spec.max_waiting:
                raise QueueFull(f"{waiting} texts are waiting already")
            self._inbox.append(answer)
        self.wake()
        return ticket

    def step(self) -> bool:
        """Moves everything on by one pass through the model; False when there was nothing to do."""
        with self._turn, torch.inference_mode():
            worked = self._arrivals_and_departures()
            if self._embeddings:
                job = self._embeddings[0]
                job.go_on(self.model, self.spec.tokens_per_step)
                if job.result.done():
                    self._embeddings.popleft()
                worked = True
            plan = self.scheduler.plan(None if self.drafts is None else self.drafts.guess)
            if not plan.turns:
                return worked
            start = time.perf_counter()
            self.reader.copy(plan)
            for part, logits_NV in self._read(plan):
                self._go_on(part, logits_NV)
            self._counts["steps"] += 1
            self._counts["microseconds"] += int((time.perf_counter() - start) * 1e6)
            return True

    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
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
            blocks_used=self.pool.used,
            blocks_cached=self.pool.cached,
            blocks_total=self.pool.total,
            prompt_tokens=counts["prompt_tokens"],
            cached_tokens=counts["cached_tokens"],
            completion_tokens=counts["completion_tokens"],
            prefix_hits=counts["prefix_hits"],
            preemptions=self.scheduler.preemptions,
            guessed_tokens=counts["guessed_tokens"],
            kept_tokens=counts["kept_tokens"],
            steps=counts["steps"],
            step_seconds=counts["microseconds"] / 1e6,
            failures=counts["failures"],
            finished=dict(self._finished),
        )

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not (self._answers or self._inbox or self._embeddings)

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
                expected=f"at most {self.pool.total * self.pool.size} tokens",
                got=str(limit),
                fix="Ask for fewer tokens, or give the engine more memory",
            )

    def _limit(self, request: Request) -> int:
        return len(request.prompt) + room_for(self.model, len(request.prompt), request.max_new_tokens)

    def _answer(self, ticket: Ticket) -> Answer:
        request = ticket.request
        answer = Answer(ticket, lambda finish: self._finished.update((finish,)))
        length, limit = len(request.prompt), self._limit(request)
        for number in range(request.best_of or request.n):
            leader = answer.choices[0].stream if number else None
            stream = Stream(tokens=list(request.prompt), prompt=length, limit=limit, salt=request.salt, leader=leader)
            chooser = Chooser(request, number, self.tokenizer, room=limit - length)
            answer.choices.append(Choice(answer, stream, chooser))
        return answer

    def _on_cancel(self, ticket: Ticket) -> None:
        self._cancelled.append(ticket)
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

    def _begin(self, answer: Answer) -> None:
        ticket = answer.ticket
        self._answers[ticket] = answer
        if ticket.request.deadline is not None:
            heapq.heappush(self._deadlines, (ticket.request.deadline, next(self._numbers), ticket))
        leader, *followers = [choice.stream for choice in answer.choices]
        if followers:
            self._followers[leader] = followers
        for choice in answer.choices:
            if choice.chooser.finish is None:
                self._choices[choice.stream] = choice
                self.scheduler.add(choice.stream)
            else:  # there is no room for a token
                self._put(choice, Piece(choice=choice.chooser.choice, finish=choice.chooser.finish))

    def _drop(self, ticket: Ticket, finish: Finish, error: Exception | None = None) -> None:
        answer = self._answers.get(ticket)
        if answer is None:
            return
        ticket.error = error
        for choice in answer.choices:
            if choice.chooser.finish is None:
                self._put(choice, choice.chooser.end(finish))

    def _end_all(self, finish: Finish, error: Exception | None) -> None:
        with self._turn:
            while self._inbox:
                self._begin(self._inbox.popleft())
            for ticket in list(self._answers):
                self._drop(ticket, finish, error)
            while self._embeddings:
                self._embeddings.popleft().result.set_exception(error or EngineStopped("the engine has ended"))

    def _put(self, choice: Choice, piece: Piece) -> None:
        """Hands a piece on; with a finish, the choice and all it holds are gone."""
        if piece.finish is not None:
            if self._choices.pop(choice.stream, None) is not None:
                self.scheduler.end(choice.stream)
                if self.drafts is not None:
                    self.drafts.end(choice.stream)
            self._followers.pop(choice.stream, None)
        answer = choice.answer
        answer.put(choice, piece)
        if answer.ticket.done:
            self._answers.pop(answer.ticket, None)

    def _read(self, plan: Plan) -> Iterator[tuple[Plan, Tensor]]:
        """Runs the pass: scores (N, V) after the last token of each text that has been read to its end.

        If it fails, its texts are tried one at a time, so that one that breaks the model ends alone.
        """
        try:
            logits_NV = self.reader.read(plan)
        except Exception as error:
            self._counts["failures"] += 1
            if len(plan.turns) > 1:
                for turn in plan.turns:
                    if turn.stream.state == "running":
                        yield from self._read(Plan([turn]))
                return
            log.exception("the model failed on a text")
            self._drop(self._choices[plan.turns[0].stream].answer.ticket, "error", error)
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= FAILURES_TO_GIVE_UP:
                self.fail(error)
        else:
            self._failures_in_a_row = 0
            yield plan, logits_NV

    def _go_on(self, plan: Plan, logits_NV: Tensor) -> None:
        """What has been read is in the cache; texts that have been read to their end get their next token."""
        self.scheduler.advance(plan)
        asked: list[tuple[Choice, int, tuple[int, ...]]] = []  # who, the row of its scores, what was guessed after it
        row = 0
        for turn in plan.turns:
            if turn.last:
                asked.append((self._choices[turn.stream], row, turn.guess))
                for follower in self._followers.pop(turn.stream, ()):
                    if follower in self._choices and self.scheduler.fork(turn.stream, follower):
                        asked.append((self._choices[follower], row, ()))
                self._counts["guessed_tokens"] += len(turn.guess)
                row += 1 + len(turn.guess)
        while asked:
            choices, rows, guesses = zip(*asked, strict=True)
            scores_NV = logits_NV if [*rows] == [*range(len(logits_NV))] else logits_NV[[*rows]]
            asked = []
            for choice, row, guess, token in zip(choices, rows, guesses, self._choose(scores_NV, choices), strict=True):
                self._take(choice, token)
                # What was chosen is what had been guessed, and read: the scores after it are there.
                if guess and choice.stream.state == "running" and choice.stream.tokens[-1] == guess[0]:
                    self.scheduler.count_read(choice.stream, 1)
                    self._counts["kept_tokens"] += 1
                    asked.append((choice, row + 1, guess[1:]))

    def _choose(self, logits_NV: Tensor, choices: Sequence[Choice]) -> list[WrittenToken | Exception]:
        try:
            return [*choose_all(logits_NV, [choice.chooser for choice in choices])]
        except Exception as error:
            if len(choices) == 1:
                return [error]
        return [self._choose(logits_NV[row : row + 1], [choice])[0] for row, choice in enumerate(choices)]

    def _take(self, choice: Choice, token: WrittenToken | Exception) -> None:
        ticket, stream = choice.answer.ticket, choice.stream
        if stream.state == "done":
            return  # another choice of the same request has failed
        try:
            if isinstance(token, Exception):
                raise token
            piece = choice.chooser.push(token)
        except Exception as error:
            self._drop(ticket, "error", error)
            return
        if len(stream.tokens) == stream.prompt:
            self._count_beginning(choice)
        ticket.usage.completion_tokens += 1
        self._counts["completion_tokens"] += 1
        stream.tokens.append(token.id)
        self._put(choice, piece)

    def _count_beginning(self, choice: Choice) -> None:
        cached = choice.stream.cached or 0
        if choice.chooser.choice == 0:
            choice.answer.ticket.usage.cached_tokens = cached
            self._counts["prompt_tokens"] += choice.stream.prompt
            self._counts["cached_tokens"] += cached
            self._counts["prefix_hits"] += cached > 0
