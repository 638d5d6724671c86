"""Retriever: the passages for a question, put before a model, and the citations in its answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.grounded import NOTHING_FOUND
from underhood.data.instruct import is_refusal
from underhood.infer.arguments import check_path, kind_of
from underhood.infer.chat import ANSWER_SHARE
from underhood.infer.grammar import Grammar
from underhood.infer.load import LoadedModel
from underhood.infer.sample import SamplingSpec
from underhood.retrieve.followup import names_in, search_query
from underhood.retrieve.index import RUN_INDEX, Hit, PassageIndex, index_file
from underhood.retrieve.passages import Passage
from underhood.retrieve.quote import missing_name, quote_grammar, speller
from underhood.retrieve.sentences import sentence_spans
from underhood.retrieve.template import RetrievalTemplate, template_for
from underhood.retrieve.terms import terms
from underhood.text.chat import Message, Template

SEARCHED = 8
"""Passages that are looked at for each that a model gets."""

PASSAGE_SHARE = 2
"""At most half of the model's context goes to passages; the rest is for the conversation and the answer."""

MARKERS = 48
"""Tokens left for what a chat template puts around the messages, where it is not known."""

QUESTION_MAX = 2000
"""Characters of a message that are searched: of a longer one, such as a pasted file with a question before or behind
it, the first and the last half of them. The analysis of a question takes time with the square of its length."""

SEVERAL = 3
"""Words of a question that a passage has in common with it when it is taken to be about the same, whatever its
title."""

_CITATION = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A "[1]" in an answer.

    Attributes:
        number: the passage's number in the prompt, from 1.
        start, end: where the citation is in the answer.
    """

    number: int
    passage: Passage
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """A turn with what was retrieved for it; a `PreparedPrompt` of `ChatSession`.

    Attributes:
        query: what was searched for; "" if the turn asks for nothing that could be searched.
        hits: the passages that the model reads, in the order of their numbers.
        messages: what the model reads.
        grammar: what the answer must match, or None.
        sampling: how the answer is drawn; None leaves it to the caller.
    """

    query: str
    hits: tuple[Hit, ...]
    messages: tuple[Message, ...]
    grammar: Grammar | None = None
    sampling: SamplingSpec | None = None

    def citations(self, answer: str) -> list[Citation]:
        """The citations in an answer, in order; numbers that no passage has are none."""
        return [
            Citation(
                number=int(match[1]), passage=self.hits[int(match[1]) - 1].passage, start=match.start(), end=match.end()
            )
            for match in _CITATION.finditer(answer)
            if 1 <= int(match[1]) <= len(self.hits)
        ]


@dataclass(frozen=True)
class Retriever:
    """Searches an index for a conversation's last question and prepares the prompt.

    Attributes:
        template: how passages are put before the model.
        tokenizer: the model's. With it, passages that the vocabulary can't spell are left out, and those that do not
            fit into the context are left out or cut between sentences.
        context_length: the model's; None means no limit.
        markers: tokens that the model's chat template puts around a system message, a question and an answer.
    """

    index: PassageIndex
    template: RetrievalTemplate
    tokenizer: Tokenizer | None = None
    context_length: int | None = None
    markers: int = MARKERS

    def prepare(self, messages: Sequence[Message], *, quote: bool | None = None) -> Retrieved:
        """The last question with its passages.

        A turn without anything to search for ("Hello!", "Who are you?") stays as it is, and its answer is free. Where
        nothing is found, the model is told so, unless its template leaves that to plain chat.

        Args:
            messages: the conversation as the two wrote it; the last message is the user's.
            quote: whether the answer is held to whole sentences of the passages; None does what the template says.

        Raises:
            ValueError: there is no message of the user at the end.
        """
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("expected a conversation that ends with the user's message")
        searched = [{**message, "content": _searched(message["content"])} for message in messages]
        query = search_query(searched)
        hits = self._readable(self.find(query), messages) if query else ()
        general = self.template.chats and not self._names(query)
        if general and not hits:
            return Retrieved(query=query, hits=(), messages=without_grounded_turns(messages))
        told = query and (hits or self._can_spell(NOTHING_FOUND))
        read = self.template.readable(messages)
        prepared = self.template.apply(read, [hit.passage for hit in hits]) if told else read
        quoting = self.template.quote and not general if quote is None else quote
        grammar = self._grammar(searched[-1]["content"], hits) if query and quoting else None
        return Retrieved(query=query, hits=hits, messages=prepared, grammar=grammar)

    def find(self, query: str) -> list[Hit]:
        """The passages that a model gets for a query: those that the template does not rule out, best first."""
        template, names = self.template, self._names(query)
        hits = self.index.search(query, k=SEARCHED * template.passages)
        if names and template.names_must_match:
            hits = [hit for hit in hits if any(mentions(hit.passage, name) for name in names)]
        elif not names:
            hits = [hit for hit in hits if hit.coverage >= template.min_coverage]
            hits = [hit for hit in hits if not template.chats or is_about(hit)]
        return hits[: template.passages]

    def _names(self, query: str) -> list[str]:
        """The names in a query; for a template that chats only those written as code, not "life" in "What is life?"."""
        names = names_in(query)
        return [name for name in names if is_code(name, query)] if self.template.chats else names

    def _grammar(self, question: str, hits: Sequence[Hit]) -> Grammar | None:
        """What the answer is held to; None where the vocabulary can spell no such answer."""
        refusals = [*map(missing_name, self._missing_names(question, hits)), self.template.refusal]
        spelt = list(filter(self._can_spell, refusals))
        return quote_grammar([hit.passage for hit in hits], refusals=spelt) if hits or spelt else None

    def _missing_names(self, question: str, hits: Sequence[Hit]) -> list[str]:
        """The names in the question that no passage has as its title, and that none of the hits mentions.

        So a refusal that names something is true: a model can't deny a function that the documents have.
        """
        mentioned = {name for name in names_in(question) if any(mentions(hit.passage, name) for hit in hits)}
        return [name for name in names_in(question) if name not in mentioned and not self._is_title(name)]

    def _is_title(self, name: str) -> bool:
        best = self.index.search(f"`{name}`", k=1)
        title = best[0].passage.title.casefold() if best else ""
        return title == name.casefold() or title.endswith("." + name.casefold())

    @cached_property
    def _can_spell(self) -> Callable[[str], bool]:
        return (lambda _: True) if self.tokenizer is None else speller(self.tokenizer)

    def _readable(self, hits: Sequence[Hit], messages: Sequence[Message]) -> tuple[Hit, ...]:
        """The first hits that the model can read and that there is room for, the last of them cut between sentences."""
        hits = [hit for hit in hits if self._can_spell(f"[1] {hit.passage.shown}")]
        if self.tokenizer is None or self.context_length is None:
            return tuple(hits)
        fixed = [self.template.instruction, messages[-1]["content"]]
        fixed += [message["content"] for message in messages if message["role"] == "system"]
        taken = sum(len(self.tokenizer.encode(text)) for text in fixed) + self.markers
        free = self.context_length - self.context_length // ANSWER_SHARE - taken
        room, fitting = min(free, self.context_length // PASSAGE_SHARE), []
        for hit in hits:
            cost = self._cost(hit.passage)
            if cost > room:
                cut = self._cut(hit.passage, room)
                return (*fitting, replace(hit, passage=cut)) if cut is not None else tuple(fitting)
            fitting.append(hit)
            room -= cost
        return tuple(fitting)

    def _cut(self, passage: Passage, room: int) -> Passage | None:
        """The passage up to the last sentence that fits; None if not even the first does."""
        for _, end in reversed(sentence_spans(passage.text)):
            shorter = replace(passage, text=passage.text[:end])
            if self._cost(shorter) <= room:
                return shorter
        return None

    def _cost(self, passage: Passage) -> int:
        assert self.tokenizer is not None
        return len(self.tokenizer.encode(f"\n\n[1] {passage.shown}"))


def is_code(name: str, question: str) -> bool:
    """Whether a question writes a name as code: dotted, with an underscore, in backticks or with a call's bracket."""
    return "." in name or "_" in name or f"`{name}" in question or f"{name}(" in question


def is_about(hit: Hit) -> bool:
    """Whether a passage is about what was asked: its title has a word of the question, or its text has several.

    A question of one or two words is covered by any passage that happens to use them ("What is an apple?"). Numbers
    do not count: "What is 7 times 8?" is not about ``encode_7or8bit``.
    """
    words = [word for word in hit.matched if not word.isdecimal()]
    title = set(terms(hit.passage.title))
    return len(words) >= SEVERAL or any(title.intersection(terms(word)) for word in words)


def without_grounded_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """A conversation without the turns that were answered from passages, or refused for want of them.

    Plain chat goes on without them: the model would see answers in that form without the passages that they are from,
    and a small one repeats them.
    """
    kept: list[Message] = []
    for message in messages:
        grounded = message["role"] == "assistant" and (
            _CITATION.search(message["content"]) or is_refusal(message["content"])
        )
        if grounded and kept and kept[-1]["role"] == "user":
            kept.pop()
        elif not grounded:
            kept.append(message)
    return tuple(kept)


def _searched(text: str) -> str:
    half = QUESTION_MAX // 2
    return text if len(text) <= QUESTION_MAX else f"{text[:half]}\n{text[-half:]}"


def mentions(passage: Passage, name: str) -> bool:
    """Whether a passage has a name as a whole, or as the end of a dotted name."""
    text = f"{passage.title} {passage.text} {passage.search_text}"
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def open_retriever(loaded: LoadedModel, path: str | Path | None = None) -> Retriever | None:
    """The retriever for a model: of an index, or of the one that its run has.

    A model that was trained to answer from passages reads one in the form of its training; any other chat model reads
    one with an instruction.

    Args:
        path: a file made by `underhood index`, or the folder of a run with an index; None takes the run's own.

    Returns:
        None if no path is given and the run has no index that its model was trained for.

    Raises:
        UserError: the model has not learnt to chat, or there is no index at `path`.
    """
    if not isinstance(loaded, LoadedModel):
        raise UserError("that is not a model", expected="what underhood.load returns", got=kind_of(loaded))
    if path is not None:
        check_path(path, "path")
    if path is None:
        path = loaded.run / RUN_INDEX
        if not (loaded.retrieval is not None and loaded.chats and path.exists()):
            return None
    return retriever_for(loaded, PassageIndex.load(index_file(Path(path))))


def retriever_for(loaded: LoadedModel, index: PassageIndex) -> Retriever:
    """The retriever of an index for a model that chats, in the form that the model was trained on or is told.

    Raises:
        UserError: the model has not learnt to chat.
    """
    if loaded.template is None:
        raise UserError(
            f"the {loaded.stage} model has not learnt to chat, so it can't answer from documents",
            fix="Name a chat model, or leave out the index",
        )
    return Retriever(
        index,
        template_for(loaded.retrieval),
        tokenizer=loaded.tokenizer,
        context_length=loaded.spec.context_length,
        markers=marker_tokens(loaded.template, loaded.tokenizer),
    )


def marker_tokens(template: Template, tokenizer: Tokenizer) -> int:
    """Tokens that a chat template puts around a question and its answer, and as many for a system message."""
    empty_turn = template.render(tokenizer, [{"role": "user", "content": ""}], add_generation_prompt=True)
    return 2 * len(empty_turn.ids)
