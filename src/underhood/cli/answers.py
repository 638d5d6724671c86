"""Questions of ``underhood generate --retrieve``: their prompts, and the passages behind the answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from underhood.cli.retrieval_options import nothing_to_quote, open_documents
from underhood.cli.search import as_json
from underhood.core.errors import UserError
from underhood.infer.grammar import Grammar
from underhood.infer.load import LoadedModel
from underhood.infer.request import Request
from underhood.infer.sample import SamplingSpec
from underhood.retrieve.retriever import Retrieved

if TYPE_CHECKING:
    from underhood.cli.generate import Args


def answer_request(
    args: Args, loaded: LoadedModel, question: str, sampling: SamplingSpec, grammar: Grammar | None
) -> tuple[Request, Retrieved]:
    """The request that answers a question from documents, and the passages in it.

    Raises:
        UserError: the options exclude each other, the model has not learnt to chat, or there is no index.
    """
    if grammar is not None and args.quote:
        raise UserError("an answer keeps to one form", fix="Leave out --quote, --regex or --schema")
    retriever = open_documents(args, loaded)
    if retriever is None:
        raise nothing_to_quote()
    quote = False if grammar is not None else args.quote
    retrieved = retriever.prepare([{"role": "user", "content": question}], quote=quote)
    if retrieved.hits and args.temperature is None:
        sampling = replace(sampling, temperature=0.0)
    talk = loaded.conversation(prepare=lambda _: retrieved)
    request = talk.request(question, max_new_tokens=args.max_tokens, sampling=sampling, stop=args.stop)
    return replace(request, grammar=request.grammar or grammar), retrieved


def retrieval_report(retrieved: Retrieved, answers: list[str]) -> dict[str, object]:
    """The passages that the model read, and by answer the numbers of those that it cites."""
    return {
        "retrieved": [{"number": number, **as_json(hit)} for number, hit in enumerate(retrieved.hits, 1)],
        "citations": [[citation.number for citation in retrieved.citations(answer)] for answer in answers],
    }
