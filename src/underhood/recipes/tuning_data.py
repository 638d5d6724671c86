"""Training data for a model that chats already: passage questions in proportion, and its own general answers.

A build from scratch also teaches by heart and by small talk. Here the model keeps what it says without a passage: its
own answers to general prompts are part of the data (`data.general_chat`), so that it goes on giving them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from underhood.data.documents import Corpus
from underhood.data.general_chat import HELD_OUT_CHAT, REHEARSED
from underhood.data.grounded import contrasted_examples, has_passage, text_of
from underhood.data.instruct import NOT_THERE, Example, chance, conversation
from underhood.data.pydocs import DocumentedFunction
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel
from underhood.recipes.training_data import TEXT, UNFINISHED, ReferenceAnswer, StageData
from underhood.text.chat import Template

EXAMPLES_PER_MINUTE = 150
"""Conversations made for each minute of a build: more than a laptop reads; faster machines read them again."""

SHARES = {
    "contrasted": 0.46,
    "parameters": 0.06,
    "how-to": 0.08,
    "sentence": 0.60,
    "unanswered": 0.12,
    "talk": 0.24,
    "text": 0.08,
}
"""Mixture of the training data: shares of the draws. Kinds that a text does not give are left out; the others share
their part.

A contrasted pair counts once: half of all examples are about what a function does or its parameters. Copying works
after a hundred of them; which sentence the question wants, and refusals, take longer. Questions how to do something are
answered as those what a function does, so a few more about parameters keep the balance."""

SHORT_PASSAGE, SHORT_NAME = 100, 24
"""Characters of the passages that pairs are made of, and of the names in them, which each question, passage and answer
repeats: shorter ones teach the same in less time."""

REHEARSED_PER_MINUTE = 14
"""General prompts for each minute of a build. The model has to answer each before training, and reads about so many."""

COMPARED = 10
"""General prompts that are not rehearsed, whose answers are compared before and after."""

TEXTS, TEXT_CHARACTERS = 16, 180
"""Pieces of the corpus that are rehearsed as they are, and their length. Without them the tuned model expects the form
of its answers in any text: 0.10 bits per byte more on documentation."""

BESIDE = 4
"""One general prompt in so many is also rehearsed with a passage."""

Group = tuple[Example, ...]
"""Examples that are read one after another."""

ANSWER_TOKENS = 12
"""Tokens of each general answer: how it begins is what must not change."""


def tuning_data(
    data: StageData,
    functions: Sequence[DocumentedFunction],
    train: Corpus,
    loaded: LoadedModel,
    template: Template,
    *,
    minutes: float,
    seed: int,
) -> StageData:
    """The data of a build from scratch, without what only a model without knowledge has to learn.

    Args:
        functions: to ask about; none for a text that has none.
        train: the text, of which some is read as it is.
        loaded: the model before training; it writes the general answers.
    """
    rehearsed_prompts = chance(seed, "rehearsed").sample(
        REHEARSED, min(len(REHEARSED), round(REHEARSED_PER_MINUTE * max(1.0, minutes)))
    )
    prompts = [*rehearsed_prompts, *HELD_OUT_CHAT[:COMPARED]]
    answers = own_answers(loaded, template, prompts)
    rehearsed = [
        talk for prompt, talk in zip(prompts, answers, strict=True) if prompt in rehearsed_prompts and talk.answer
    ]
    groups: dict[str, list[Group]] = {}
    for example in data.examples:
        if _from_passages(example, refuses=not functions):
            groups.setdefault(example.kind, []).append((example,))
    short = [each for each in functions if len(text_of(each)) <= SHORT_PASSAGE and len(each.name) <= SHORT_NAME]
    contrasted = contrasted_examples(short, seed=seed)
    groups["contrasted"] = [*zip(contrasted[::2], contrasted[1::2], strict=True)]
    passages = [example.question.partition("\n\n")[2] for example in data.examples if has_passage(example)]
    groups[TEXT] = [(Example(conversation("", text), TEXT, ""),) for text in text_windows(train, seed)]
    groups["talk"] = [(talk,) for talk in [*rehearsed, *_beside_passages(rehearsed, passages, seed)]]
    count = max(64, round(EXAMPLES_PER_MINUTE * minutes))
    chats = [
        ReferenceAnswer(prompt, talk.answer, "chat")
        for prompt, talk in zip(prompts, answers, strict=True)
        if prompt in HELD_OUT_CHAT
    ]
    pairs, held_out_pairs = (
        [pair for pair in pairs if pair.kind != "wrong-function"]  # those are about what it knows by heart
        for pairs in (data.pairs, data.held_out_pairs)
    )
    return replace(
        data,
        examples=list(itertools.islice(in_proportion(groups, seed), count)),
        pairs=pairs,
        held_out_pairs=held_out_pairs,
        questions={},
        answers=chats,
        plain={},
    )


def own_answers(loaded: LoadedModel, template: Template, prompts: Sequence[str]) -> list[Example]:
    """What the model answers to each prompt, greedily; `UNFINISHED` where it had not come to an end."""
    tokenizer = loaded.tokenizer
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    written = generate(
        loaded.model,
        [template.render(tokenizer, turn, add_generation_prompt=True).ids for turn in turns],
        max_new_tokens=ANSWER_TOKENS,
        stop_ids=template.stop_ids(tokenizer),
    )
    return [
        Example(
            conversation(prompt, tokenizer.decode(completion.ids).strip()),
            "talk" if completion.finish == "stop" else UNFINISHED,
            prompt,
        )
        for prompt, completion in zip(prompts, written, strict=True)
    ]


def text_windows(train: Corpus, seed: int) -> list[str]:
    """Pieces of the text, each from the beginning of a line."""
    pick = chance(seed, "windows")
    pieces = []
    for document in pick.sample(list(train.documents), min(TEXTS, len(train.documents))):
        start = pick.randrange(len(document.text))
        start = document.text.rfind("\n", 0, start) + 1
        pieces.append(document.text[start : start + TEXT_CHARACTERS].strip())
    return [piece for piece in pieces if piece]


def in_proportion(groups: Mapping[str, Sequence[Group]], seed: int) -> Iterator[Example]:
    """Examples without end, each kind by its share, so that any stretch of them has the same mixture."""
    pick = chance(seed, "proportion")
    streams = {}
    for kind in SHARES:
        if groups.get(kind):
            streams[kind] = itertools.cycle(pick.sample(groups[kind], len(groups[kind])))
    kinds, shares = list(streams), [SHARES[kind] for kind in streams]
    while streams:
        yield from next(streams[pick.choices(kinds, shares)[0]])


def _beside_passages(talks: Sequence[Example], passages: Sequence[str], seed: int) -> Iterator[Example]:
    """Some of the general prompts with a passage that a search found by mistake: the answer is as without it."""
    pick = chance(seed, "beside")
    for talk in talks[::BESIDE] if passages else ():
        yield replace(talk, messages=conversation(f"{talk.question}\n\n{pick.choice(passages)}", talk.answer))


def _from_passages(example: Example, *, refuses: bool) -> bool:
    """Whether it is asked as a chat would ask it: with a passage, or about a name that no passage has.

    Without a passage, other questions are plain chat (`retrieve.template.TUNED`), and nothing is to be learnt.

    Args:
        refuses: whether a question whose passage does not answer it is refused.
    """
    if example.answer != NOT_THERE and example.kind == "unanswered":
        return True
    return has_passage(example) and (refuses or example.answer != NOT_THERE)
