"""Retrieval in the API: the passages for a chat request, and what its answer tells about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.retrieve.highlight import matched_spans
from underhood.retrieve.passages import Passage
from underhood.retrieve.retriever import Retrieved
from underhood.web.documents import Documents
from underhood.web.errors import ApiError, invalid
from underhood.web.requests import RetrieveOptions
from underhood.web.responses import CitationFacts, RetrievedPassage, UrlCitation


def retrieve(
    documents: Documents | None,
    wanted: bool | RetrieveOptions | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    constrained: str | None = None,
) -> Retrieved | None:
    """The passages for a conversation and the prompt with them; None where nothing is to be searched.

    A request that says nothing (`wanted` is None) gets the server's default: passages, if there is a default index, for
    conversations without tools that end with the user's message.

    Args:
        constrained: the field that already holds the answer to a form, ``response_format`` or ``tools``.

    Raises:
        ApiError: retrieval is asked for and impossible.
    """
    asks = bool(messages) and messages[-1]["role"] == "user"
    if wanted is None:
        if documents is None or documents.default is None or not asks or constrained == "tools":
            return None
        wanted = RetrieveOptions()
    if wanted is False:
        return None
    options = RetrieveOptions() if wanted is True else wanted
    if documents is None:
        raise invalid(
            "This model has no documents to answer from; serve it with --retrieve INDEX, or leave retrieve out.",
            "retrieve",
        )
    if not asks:
        raise invalid("Retrieval needs a conversation that ends with the user's message.", "messages")
    if options.quote and constrained is not None:
        raise invalid(f"retrieve.quote and {constrained} exclude each other.", "retrieve.quote")
    hold = False if constrained is not None else documents.quote if options.quote is None else options.quote
    try:
        return documents.retriever(options).prepare(list(messages), quote=hold)
    except UserError as error:
        raise ApiError(400, str(error), param="retrieve") from error


def sampling_with(retrieved: Retrieved | None, loaded: LoadedModel) -> SamplingSpec:
    """How an answer is drawn unless a request says otherwise: from passages greedily, like everywhere in Underhood."""
    if retrieved is None or not retrieved.hits:
        return loaded.default_sampling(answers=True)
    return retrieved.sampling or GREEDY


def passages_of(retrieved: Retrieved) -> list[RetrievedPassage]:
    """The passages of an answer, as the API tells them."""
    return [
        RetrievedPassage(
            number=number,
            title=hit.passage.title,
            text=hit.passage.text,
            source=hit.passage.source,
            line=hit.passage.line,
            score=hit.score,
            matched=list(hit.matched),
            marks=matched_spans(hit.passage.text, hit.matched),
        )
        for number, hit in enumerate(retrieved.hits, 1)
    ]


def annotations_of(retrieved: Retrieved, answer: str) -> list[CitationFacts]:
    """The citations of an answer in OpenAI's form: ``answer[start_index:end_index]`` is ``[1]``."""
    return [
        CitationFacts(
            url_citation=UrlCitation(
                start_index=citation.start,
                end_index=citation.end,
                title=citation.passage.title or citation.passage.source,
                url=url_of(citation.passage),
            )
        )
        for citation in retrieved.citations(answer)
    ]


def url_of(passage: Passage) -> str:
    """A passage's source and line as a relative URL, e.g. ``guide/install.md#L12``; of a PDF its page."""
    file, page, number = passage.source.rpartition("#page=")
    if page:
        return f"{quote(file, safe='/:')}#page={number}"
    return f"{quote(passage.source, safe='/:')}#L{passage.line}"
