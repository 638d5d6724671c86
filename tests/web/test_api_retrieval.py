"""Retrieval in ``/v1/chat/completions``: passages, citations, the `retrieve` field and its mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from documents_server import DEDENT, JOIN, LISTS, NOTE, PASSAGES, documents_server
from live_server import Live, tiny_server

import underhood
from underhood.core.errors import UserError
from underhood.retrieve.index import PassageIndex
from underhood.retrieve.retriever import open_retriever
from underhood.retrieve.template import INSTRUCTED, TAUGHT
from underhood.web.documents import RetrievalSettings, open_documents

CHAT = "/v1/chat/completions"
QUESTION = "What does os.path.join do?"
ASK: list[Any] = [{"role": "user", "content": QUESTION}]
TOOL: Any = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with documents_server(tmp_path_factory.mktemp("documents")) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> openai.OpenAI:
    return live.openai()


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The same run served with ``--retrieve notes.index``."""
    with documents_server(tmp_path_factory.mktemp("noted"), notes=True) as live:
        yield live


def prompt_length(live: Live, messages: list[Any]) -> int:
    loaded = live.registry.default.loaded
    assert loaded.template is not None
    return len(loaded.template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids)


def retrieved_by(answer: Any) -> list[dict[str, Any]] | None:
    return answer.model_extra["retrieved"]


def test_answer_is_that_of_the_retriever_in_python(live: Live, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="taught", messages=ASK, temperature=0)
    loaded = live.registry.default.loaded
    retriever = open_retriever(loaded)
    assert retriever is not None
    assert answer.choices[0].message.content == loaded.chat(QUESTION, prepare=retriever.prepare, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == prompt_length(live, list(TAUGHT.apply(ASK, [JOIN])))


def test_quoted_answer_cites_its_passage_in_openais_form(client: openai.OpenAI) -> None:
    """Whatever the random weights prefer, a quote of the passage is the whole answer, or a refusal is."""
    answers = [
        client.chat.completions.create(model="taught", messages=ASK, temperature=2, seed=seed) for seed in range(12)
    ]
    quotes = [
        "`os.path.join`: Join two or more pathname components. [1]",
        "`os.path.join`: Parameters: `a` and `*p`. [1]",
        "`os.path.join`: Join two or more pathname components. Parameters: `a` and `*p`. [1]",
    ]
    cited = 0
    for answer in answers:
        message = answer.choices[0].message
        text = message.content or ""
        assert text in quotes or text.endswith("in the documents.")
        assert message.annotations is not None
        assert len(message.annotations) == (text in quotes)
        for annotation in message.annotations:
            citation = annotation.url_citation
            assert annotation.type == "url_citation"
            assert text[citation.start_index : citation.end_index] == "[1]"
            assert (citation.title, citation.url) == ("os.path.join", "module%20os.path#L1")
            cited += 1
    assert cited


def test_retrieved_passages_are_those_of_the_index(client: openai.OpenAI) -> None:
    index = PassageIndex.build(PASSAGES)
    for question in (QUESTION, "how do I keep the order when sorting lists?"):
        messages: list[Any] = [{"role": "user", "content": question}]
        answer = client.chat.completions.create(
            model="taught", messages=messages, max_tokens=2, extra_body={"retrieve": {"k": 3}}
        )
        hits = index.search(question, k=3)
        assert hits
        told = retrieved_by(answer)
        assert told is not None
        for number, (passage, hit) in enumerate(zip(told, hits, strict=True), 1):
            marked = [passage["text"][start:end] for start, end in passage.pop("marks")]
            assert passage == {
                "number": number,
                "title": hit.passage.title,
                "text": hit.passage.text,
                "source": hit.passage.source,
                "line": hit.passage.line,
                "score": pytest.approx(hit.score),
                "matched": list(hit.matched),
            }
            if hit.passage == LISTS:
                assert marked == ["list", "sorted", "sorting", "keeps", "order"]


def test_stream_tells_passages_first_and_citations_last(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "taught", "messages": ASK, "seed": 1, "n": 2, "temperature": 2}
    whole = client.chat.completions.create(**given)
    chunks = [*client.chat.completions.create(**given, stream=True)]
    told = [extra["retrieved"] for chunk in chunks if "retrieved" in (extra := chunk.model_extra or {})]
    assert told == [retrieved_by(whole)]
    assert "retrieved" in (chunks[0].model_extra or {})
    for choice in whole.choices:
        mine = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert "".join(piece.delta.content or "" for piece in mine) == choice.message.content
        cited = [piece.delta.model_extra["annotations"] for piece in mine if piece.delta.model_extra]
        assert cited == [[annotation.model_dump() for annotation in choice.message.annotations or ()]]
        assert mine[-1].finish_reason == "stop"
        assert mine[-1].delta.model_extra


def test_retrieval_can_be_left_out(live: Live, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="taught", messages=ASK, temperature=0, max_tokens=8, extra_body={"retrieve": False}
    )
    assert answer.choices[0].message.content == live.registry.default.loaded.chat(QUESTION, temperature=0, max_tokens=8)
    assert answer.choices[0].message.annotations is None
    assert retrieved_by(answer) is None
    chunks = client.chat.completions.create(
        model="taught", messages=ASK, max_tokens=2, stream=True, extra_body={"retrieve": False}
    )
    for chunk in chunks:
        assert "retrieved" not in (chunk.model_extra or {})
        assert not any(piece.delta.model_extra for piece in chunk.choices)


def test_greeting_is_answered_without_passages(live: Live, client: openai.OpenAI) -> None:
    hello: list[Any] = [{"role": "user", "content": "Hello!"}]
    answer = client.chat.completions.create(model="taught", messages=hello, temperature=0, max_tokens=8)
    assert retrieved_by(answer) == []
    assert answer.choices[0].message.content == live.registry.default.loaded.chat("Hello!", temperature=0, max_tokens=8)


def test_conversation_goes_on_with_the_cited_answer(live: Live, client: openai.OpenAI) -> None:
    """An answer comes back with its annotations; the new question is searched with the name of the old one."""
    first = client.chat.completions.create(model="taught", messages=ASK, temperature=0).choices[0].message
    talk: list[Any] = [*ASK, first.model_dump(exclude_none=True), {"role": "user", "content": "and its parameters?"}]
    answer = client.chat.completions.create(model="taught", messages=talk, temperature=0)
    told = retrieved_by(answer)
    assert told is not None
    assert [passage["title"] for passage in told] == ["os.path.join"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == prompt_length(live, list(TAUGHT.apply(talk[-1:], [JOIN])))
    plain = client.chat.completions.create(model="taught", messages=talk, max_tokens=1, extra_body={"retrieve": False})
    bare: list[Any] = [*ASK, {"role": "assistant", "content": first.content}, talk[-1]]
    assert plain.usage is not None
    assert plain.usage.prompt_tokens == prompt_length(live, bare)


def test_quote_can_be_chosen_by_a_request(client: openai.OpenAI) -> None:
    free = client.chat.completions.create(
        model="taught", messages=ASK, temperature=0, max_tokens=12, extra_body={"retrieve": {"quote": False}}
    )
    held = client.chat.completions.create(
        model="taught", messages=ASK, temperature=0, extra_body={"retrieve": {"quote": True, "k": 2}}
    )
    assert not (free.choices[0].message.content or "").startswith(("`os.path.join`", "T"))
    assert (held.choices[0].message.content or "").endswith(("[1]", "[2]", "in the documents."))


def test_tools_and_formats_go_before_quoting(live: Live, client: openai.OpenAI) -> None:
    shaped: Any = {"type": "regex", "pattern": "yes|no"}
    answer = client.chat.completions.create(
        model="taught", messages=ASK, max_tokens=8, extra_body={"response_format": shaped}
    )
    assert answer.choices[0].message.content in ("yes", "no")
    assert retrieved_by(answer)  # the passages are read all the same
    called = client.chat.completions.create(
        model="taught", messages=ASK, tools=[TOOL], tool_choice="required", max_tokens=60
    )
    assert retrieved_by(called) is None  # tools are another way to look something up
    with live.http() as http:
        for also in ({"response_format": shaped}, {"tools": [TOOL]}):
            refused = http.post(CHAT, json={"model": "taught", "messages": ASK, "retrieve": {"quote": True}} | also)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "retrieve.quote"


@pytest.mark.parametrize(
    ("value", "param", "expected"),
    [
        ("yes", "retrieve", "expected true, false, or an object with k, quote and index"),
        (3, "retrieve", "expected true, false, or an object with k, quote and index"),
        ([], "retrieve", "expected true, false, or an object with k, quote and index"),
        ({"k": 0}, "retrieve.k", "greater than or equal to 1"),
        ({"k": 21}, "retrieve.k", "less than or equal to 20"),
        ({"k": 2.5}, "retrieve.k", "integer"),
        ({"k": "3"}, "retrieve.k", "integer"),
        ({"quote": "y"}, "retrieve.quote", "boolean"),
        ({"index": "taugt"}, "retrieve.index", "Did you mean taught?"),
        ({"index": "zzz"}, "retrieve.index", "There are taught."),
        ({"index": ""}, "retrieve.index", "at least 1 character"),
        ({"top": 3}, "retrieve.top", "Unknown field"),
    ],
)
def test_bad_retrieve_field_is_a_400_that_says_what_was_expected(
    live: Live, value: Any, param: str, expected: str
) -> None:
    with live.http() as http:
        refused = http.post(CHAT, json={"model": "taught", "messages": ASK, "retrieve": value})
    error = refused.json()["error"]
    assert refused.status_code == 400, error
    assert error["param"] == param
    assert expected in error["message"]


@pytest.mark.parametrize("value", [True, {}, {"k": 2}, {"k": 3.0, "quote": None, "index": "taught"}, None])
def test_good_retrieve_field_is_taken(live: Live, value: Any) -> None:
    with live.http() as http:
        body = {"model": "taught", "messages": ASK, "max_tokens": 2, "retrieve": value}
        answer = http.post(CHAT, json=body).json()
    assert answer["retrieved"][0]["title"] == "os.path.join"


def test_retrieval_needs_a_question_and_documents(live: Live, tmp_path: Path) -> None:
    ended = {"model": "taught", "messages": [*ASK, {"role": "assistant", "content": "It joins."}], "max_tokens": 2}
    with live.http() as http:
        assert http.post(CHAT, json=ended).json()["retrieved"] is None
        refused = http.post(CHAT, json=ended | {"retrieve": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    with tiny_server(tmp_path) as bare, bare.http() as http:
        bare_request = {"model": "tiny", "messages": ASK, "max_tokens": 2}
        refused = http.post(CHAT, json=bare_request | {"retrieve": True})
        assert refused.status_code == 400
        assert "--retrieve INDEX" in refused.json()["error"]["message"]
        for value in (None, False):
            assert http.post(CHAT, json=bare_request | {"retrieve": value}).json()["retrieved"] is None


def test_given_index_is_the_default_and_others_are_named(noted: Live) -> None:
    client = noted.openai()
    kettle: list[Any] = [{"role": "user", "content": "Where is the kettle?"}]
    answer = client.chat.completions.create(model="taught", messages=kettle, max_tokens=2)
    assert [passage["text"] for passage in retrieved_by(answer) or ()] == [NOTE.text]
    own: Any = {"retrieve": {"index": "taught"}}
    dedent: list[Any] = [{"role": "user", "content": "What does textwrap.dedent do?"}]
    answer = client.chat.completions.create(model="taught", messages=dedent, max_tokens=2, extra_body=own)
    assert [passage["text"] for passage in retrieved_by(answer) or ()] == [DEDENT.text]
    models = {model.id: model.model_extra for model in client.models.list()}
    assert {"index": "notes", "indexes": ["notes", "taught"]}.items() <= (models["taught:sft"] or {}).items()
    assert {"index": None, "indexes": []}.items() <= (models["taught:base"] or {}).items()


def test_served_documents_follow_the_settings(live: Live, noted: Live, tmp_path: Path) -> None:
    run = live.registry.default.loaded.run
    taught, base = underhood.load(run), underhood.load(run, "base")
    assert open_documents([taught, base], RetrievalSettings(off=True)) == [None, None]
    own, none = open_documents([taught, base], RetrievalSettings(quote=False))
    assert none is None
    assert own is not None
    assert (own.default, own.quote, own.retrievers["taught"].template) == ("taught", False, TAUGHT)
    untaught = replace(taught, retrieval=None)
    [documents] = open_documents([untaught], RetrievalSettings())
    assert documents is not None
    assert documents.default is None  # there to be asked for
    assert documents.retrievers["taught"].template == INSTRUCTED
    [documents] = open_documents([untaught], RetrievalSettings(index=run))
    assert documents is not None
    assert documents.default == "taught"
    with pytest.raises(UserError, match=r"no passages\.index"):
        open_documents([taught], RetrievalSettings(index=tmp_path))
    with pytest.raises(UserError):
        open_documents([taught], RetrievalSettings(index=tmp_path / "missing.index"))


def test_token_view_reads_the_passages_too(live: Live, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="taught", messages=ASK, temperature=0, logprobs=True)
    with live.http() as http:
        body = {"model": "taught", "messages": ASK, "text": answer.choices[0].message.content}
        read = http.post("/ui/tokens", json=body | {"retrieve": True}).json()
        alone = http.post("/ui/tokens", json=body).json()
    assert len(read["prompt_ids"]) == prompt_length(live, list(TAUGHT.apply(ASK, [JOIN])))
    assert len(alone["prompt_ids"]) == prompt_length(live, ASK)


def test_metrics_count_retrievals(live: Live, client: openai.OpenAI) -> None:
    def count(matched: str) -> float:
        wanted = f'underhood_retrievals_total{{matched="{matched}",model="taught:sft"}} '
        lines = live.http().get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    before = count("yes"), count("no")
    for text in (QUESTION, "list", "Hello!"):
        client.chat.completions.create(model="taught", messages=[{"role": "user", "content": text}], max_tokens=1)
    assert (count("yes"), count("no")) == (before[0] + 2, before[1] + 1)
