"""The retriever: passages for a conversation, put before a model, and the citations of its answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_quote import samples, texts_of
from tiny_run import make_run, tiny_tokenizer

import underhood
from underhood.core.errors import UserError
from underhood.data.grounded import NOTHING_FOUND
from underhood.data.instruct import NO_SUCH_NAME
from underhood.infer.load import LoadedModel
from underhood.infer.sample import SamplingSpec
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.retrieve.passages import Passage
from underhood.retrieve.quote import speller
from underhood.retrieve.retriever import MARKERS, QUESTION_MAX, Retriever, open_retriever
from underhood.retrieve.template import INSTRUCTED, NOT_THERE, TAUGHT
from underhood.text.characters import CharacterTokenizer
from underhood.text.chat import CHATML, Message

JOIN = Passage(
    title="os.path.join", text="Join pathname components. Parameters: `a` and `*p`.", source="module os.path", line=12
)
SPLIT = Passage(title="os.path.split", text="Split a pathname.", source="module os.path", line=40)
DEDENT = Passage(title="textwrap.dedent", text="Remove leading whitespace.", source="module textwrap", line=3)
INDEX = PassageIndex.build([JOIN, SPLIT, DEDENT])
QUESTION = "What does os.path.join do?"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def test_taught_form_is_the_question_and_then_one_passage() -> None:
    retrieved = Retriever(INDEX, TAUGHT).prepare([user(QUESTION)])
    assert [hit.passage for hit in retrieved.hits] == [JOIN]
    assert retrieved.messages == (
        user(
            "What does os.path.join do?\n\n"
            "[1] `os.path.join`: Join pathname components. Parameters: `a` and `*p`."
        ),
    )  # fmt: skip


def test_instructed_form_has_passages_the_history_and_an_instruction() -> None:
    conversation = [{"role": "system", "content": "Be short."}, user(QUESTION), assistant("-"), user("And split?")]
    retrieved = Retriever(INDEX, replace(INSTRUCTED, passages=3)).prepare(conversation)
    assert retrieved.messages[:-1] == tuple(conversation[:-1])
    question, passages, instruction = retrieved.messages[-1]["content"].split("\n\n")
    assert question == "And split?"
    assert passages.splitlines() == [f"[{n}] {hit.passage.shown}" for n, hit in enumerate(retrieved.hits, 1)]
    assert retrieved.hits[0].passage == SPLIT
    assert instruction == INSTRUCTED.instruction
    assert instruction == "Answer in one sentence."
    assert retrieved.grammar is None


def test_model_that_learnt_single_turns_reads_the_system_message_and_the_last_one() -> None:
    system: Message = {"role": "system", "content": "Be short."}
    retrieved = Retriever(INDEX, TAUGHT).prepare([system, user(QUESTION), assistant("-"), user("its parameters?")])
    assert retrieved.messages[0] == system
    assert len(retrieved.messages) == 2
    assert retrieved.messages[1]["content"].startswith("its parameters?\n\n[1] `os.path.join`: ")


@pytest.mark.parametrize("text", ["Hello!", "Who are you?"])
def test_turn_that_asks_for_nothing_stays_as_it_is_and_its_answer_is_free(text: str) -> None:
    for template in (TAUGHT, INSTRUCTED):
        retrieved = Retriever(INDEX, template).prepare([user(text)], quote=True)
        assert (retrieved.hits, retrieved.messages, retrieved.grammar) == ((), (user(text),), None)
    turns = [user(QUESTION), assistant("-"), user(text)]
    assert Retriever(INDEX, TAUGHT).prepare(turns).messages == (user(text),)  # it has learnt single turns
    assert Retriever(INDEX, INSTRUCTED).prepare(turns).messages == tuple(turns)


@pytest.mark.parametrize("text", ["xyzzy plugh", "What does textwrap.listdir do?"])
def test_model_is_told_that_nothing_was_found(text: str) -> None:
    retrieved = Retriever(INDEX, TAUGHT).prepare([user(text)], quote=False)
    assert (retrieved.hits, retrieved.messages) == ((), (user(f"{text}\n\nNo passage was found."),))
    told = CharacterTokenizer.from_texts([text])  # a vocabulary that can't spell the note
    assert Retriever(INDEX, TAUGHT, tokenizer=told).prepare([user(text)], quote=True).messages == (user(text),)


def test_passages_about_another_name_are_no_answer_for_a_small_model() -> None:
    """`textwrap.dedent` is the best hit for a name that does not exist; a model that is told what to do may see it."""
    question = "What does textwrap.listdir do?"
    assert [hit.passage for hit in INDEX.search(question, k=1)] == [DEDENT]
    assert Retriever(INDEX, TAUGHT).find(question) == []
    assert Retriever(INDEX, replace(TAUGHT, names_must_match=False)).find(question) != []  # the ablation
    assert DEDENT in [hit.passage for hit in Retriever(INDEX, INSTRUCTED).find(question)]
    for known in ("path.join", "OS.PATH.JOIN()", "`join`"):
        assert [hit.passage for hit in Retriever(INDEX, TAUGHT).find(f"What does {known} do?")] == [JOIN]


def test_passages_with_little_of_the_question_are_left_out() -> None:
    question = "How do I whip whitespace into cream for the cake?"
    assert INDEX.search(question, k=1)[0].coverage < TAUGHT.min_coverage
    assert Retriever(INDEX, TAUGHT).find(question) == []
    assert Retriever(INDEX, replace(TAUGHT, min_coverage=0.0)).find(question) != []  # the ablation
    assert Retriever(INDEX, TAUGHT).find("How do I remove leading whitespace?") != []


def test_quotes_are_the_default_of_the_template_unless_told_otherwise() -> None:
    for template, default in ((TAUGHT, True), (INSTRUCTED, False)):
        retriever = Retriever(INDEX, template)
        assert (retriever.prepare([user(QUESTION)]).grammar is not None) == default
        assert retriever.prepare([user(QUESTION)], quote=False).grammar is None
        assert retriever.prepare([user(QUESTION)], quote=True).grammar is not None


def language(question: str) -> set[str]:
    grammar = Retriever(INDEX, TAUGHT).prepare([user(question)]).grammar
    assert grammar is not None
    characters = "".join(p.shown for p in INDEX.passages) + question + NOT_THERE + NO_SUCH_NAME + NOTHING_FOUND + "[1]"
    return texts_of(grammar, CharacterTokenizer.from_texts(characters))


QUOTES_OF_JOIN = {
    "`os.path.join`: Join pathname components. [1]",
    "`os.path.join`: Parameters: `a` and `*p`. [1]",
    "`os.path.join`: Join pathname components. Parameters: `a` and `*p`. [1]",
}


def test_answer_can_deny_a_name_of_the_question_only_if_no_passage_has_it_as_its_title() -> None:
    assert language(QUESTION) == QUOTES_OF_JOIN | {NOT_THERE}
    assert language("what does join do") == QUOTES_OF_JOIN | {NOT_THERE}  # the end of a title
    assert language("What does `textwrap.listdir` do?") == {
        "`textwrap.listdir`: There is no such name in the documents.",
        NOT_THERE,
    }
    quotes = {"`textwrap.dedent`: Remove leading whitespace. [1]", NOT_THERE}
    assert language("How do I remove leading whitespace?") == quotes
    assert language("xyzzy plugh") == {NOT_THERE}
    assert language("What does `whitespace` do?") == quotes  # no title, but a passage mentions it


def test_a_pointer_to_the_turn_before_is_never_denied() -> None:
    turns = [user(QUESTION), assistant("-"), user("What are its parameters?")]
    grammar = Retriever(INDEX, TAUGHT).prepare(turns).grammar
    assert grammar is not None
    characters = "".join(QUOTES_OF_JOIN) + NOT_THERE + NO_SUCH_NAME + "its parameters"
    assert texts_of(grammar, CharacterTokenizer.from_texts(characters)) == QUOTES_OF_JOIN | {NOT_THERE}


def test_citations_are_the_numbers_that_passages_have() -> None:
    retrieved = Retriever(INDEX, replace(INSTRUCTED, passages=3)).prepare([user("pathname os path")])
    first, second = (hit.passage for hit in retrieved.hits[:2])
    assert len(retrieved.hits) < 4
    answer = "It joins [2], list[0], [9] and [1][2]."
    citations = retrieved.citations(answer)
    assert [(citation.number, citation.passage) for citation in citations] == [(2, second), (1, first), (2, second)]
    assert [answer[citation.start : citation.end] for citation in citations] == ["[2]", "[1]", "[2]"]
    assert retrieved.citations("none") == []


@pytest.mark.parametrize("before", [True, False])
def test_question_beside_a_long_text_is_searched_without_most_of_it(before: bool) -> None:
    pasted = "mapping `f(a.b.c)` " * 5000
    text = f"{QUESTION}\n{pasted}" if before else f"{pasted}\n{QUESTION}"
    retrieved = Retriever(INDEX, TAUGHT).prepare([user(text)], quote=True)
    assert retrieved.hits[0].passage == JOIN
    assert retrieved.messages[-1]["content"].startswith(text)  # the model reads all of it
    assert QUESTION_MAX <= len(retrieved.query) <= QUESTION_MAX + 1
    assert retrieved.grammar is not None
    assert len(retrieved.grammar.source) < 20_000


def test_a_conversation_must_end_with_the_user() -> None:
    for messages in ([], [user("a"), assistant("b")]):
        with pytest.raises(ValueError, match="ends with the user's message"):
            Retriever(INDEX, TAUGHT).prepare(messages)


# What a model can read


@pytest.mark.parametrize("instruction", ["", INSTRUCTED.instruction])
def test_as_many_sentences_are_read_as_half_the_context_and_the_turn_have_room_for(instruction: str) -> None:
    tokenizer = tiny_tokenizer()

    def length(text: str) -> int:
        return len(tokenizer.encode(text))

    question = [{"role": "system", "content": "Be short."}, user("pathname os path")]
    template = replace(INSTRUCTED, passages=2, instruction=instruction)
    first, second = (hit.passage for hit in Retriever(INDEX, template).prepare(question).hits)
    assert {first, second} == {SPLIT, JOIN}
    shorter = replace(JOIN, text="Join pathname components.")
    beginnings = [[], [SPLIT], [SPLIT, shorter], [SPLIT, JOIN]]
    if first == JOIN:
        beginnings = [[], [shorter], [JOIN], [JOIN, SPLIT]]
    seen = []
    for context in range(40, 900, 9):
        fixed = length("Be short.") + length("pathname os path") + length(instruction) + MARKERS
        room = min(context // 2, context - context // 4 - fixed)
        costs = [sum(length(f"\n\n[1] {passage.shown}") for passage in passages) for passages in beginnings]
        expected = [passages for passages, cost in zip(beginnings, costs, strict=True) if cost <= max(room, 0)][-1]
        retriever = Retriever(INDEX, template, tokenizer=tokenizer, context_length=context)
        retrieved = retriever.prepare(question)
        assert [hit.passage for hit in retrieved.hits] == expected
        ids = CHATML.render(tokenizer, retrieved.messages, add_generation_prompt=True).ids
        assert not expected or len(ids) <= context - context // 4  # where a conversation would be refused as too long
        seen.append(len(expected))
    assert {0, 1, 2} <= set(seen)


def test_passages_that_the_vocabulary_cannot_spell_are_left_out() -> None:
    texts = [JOIN.shown, QUESTION, NOT_THERE, "[1]", NO_SUCH_NAME]
    characters = CharacterTokenizer.from_texts(texts)
    strange = replace(JOIN, text="Jøin pathname components.")
    index = PassageIndex.build([strange, JOIN])
    retriever = Retriever(index, replace(TAUGHT, passages=2), tokenizer=characters, context_length=None)
    retrieved = retriever.prepare([user(QUESTION)])
    assert [hit.passage for hit in retrieved.hits] == [JOIN]
    # Without the refusal's letters there are quotes only.
    fewer = CharacterTokenizer.from_texts([JOIN.shown, "[1] "])
    assert not speller(fewer)(NOT_THERE)
    grammar = Retriever(INDEX, TAUGHT, tokenizer=fewer).prepare([user(QUESTION)]).grammar
    assert grammar is not None
    assert texts_of(grammar, fewer) == QUOTES_OF_JOIN


# With a model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "demo", stages=("base", "sft"), context=400, retrieval="taught")
    INDEX.save(folder / RUN_INDEX)
    return folder


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return underhood.load(run)


def test_conversation_of_a_random_model_quotes_the_right_passage(loaded: LoadedModel) -> None:
    retriever = underhood.open_retriever(loaded)
    assert retriever is not None
    warm = SamplingSpec(temperature=2.0, seed=5)
    talk = loaded.conversation(prepare=retriever.prepare)
    answers = ["".join(talk.reply(QUESTION, sampling=warm)) for _ in range(12)]
    assert set(answers) <= QUOTES_OF_JOIN | {NOT_THERE}
    assert len(set(answers)) > 1
    assert talk.messages[0] == user(QUESTION)
    # The ablations: without the hook, and with the passage but without the grammar.
    free = loaded.conversation()
    told = loaded.conversation(prepare=lambda messages: retriever.prepare(messages, quote=False))
    for conversation in (free, told):
        assert "".join(conversation.reply(QUESTION, max_new_tokens=60, sampling=warm)) not in answers


def test_random_scores_under_the_retrievers_grammar_give_candidates_only() -> None:
    grammar = Retriever(INDEX, TAUGHT).prepare([user(QUESTION)]).grammar
    assert set(samples(tiny_tokenizer(), grammar, 60)) <= QUOTES_OF_JOIN | {NOT_THERE}


def test_retriever_reads_the_runs_own_index_if_its_model_was_taught(loaded: LoadedModel, run: Path) -> None:
    retriever = open_retriever(loaded)
    assert retriever is not None
    assert (retriever.index.passages, retriever.template) == (INDEX.passages, TAUGHT)
    assert retriever.context_length == 400
    assert open_retriever(replace(loaded, retrieval=None)) is None
    assert open_retriever(underhood.load(run, "base")) is None
    other = replace(loaded, retrieval=None, run=run.parent)
    for path in (run, run / RUN_INDEX, str(run)):
        named = open_retriever(other, path)
        assert named is not None
        assert (named.index.passages, named.template) == (INDEX.passages, INSTRUCTED)


def test_retriever_names_what_is_missing(loaded: LoadedModel, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no passages"):
        open_retriever(loaded, tmp_path)
    with pytest.raises(UserError):
        open_retriever(loaded, tmp_path / "nobody.index")
    with pytest.raises(UserError, match="base model has not learnt to chat"):
        open_retriever(underhood.load(run, "base"), run)


def test_prompt_is_rendered_with_the_passage(loaded: LoadedModel) -> None:
    retriever = open_retriever(loaded)
    assert retriever is not None
    talk = loaded.conversation(prepare=retriever.prepare)
    request = talk.request(QUESTION)
    assert request.grammar is not None
    expected = [user(f"{QUESTION}\n\n[1] {JOIN.shown}")]
    assert request.prompt == CHATML.render(loaded.tokenizer, expected, add_generation_prompt=True).ids
