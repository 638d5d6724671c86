"""A made-up text in which tasks occur by themselves: ``three words CUE answer .`` among plain sentences.

GPT-2's authors list such passages of the web ("… or, in French, …") as the reason why a language model can translate
when it is asked to. Nobody labelled them; a model that predicts the text has to learn them like anything else.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

WORDS = 24
"""Of the first language; the second has as many, and each word has one translation."""

CUES = ("again", "backwards", "in French")
STOP = 2 * WORDS + len(CUES)
VOCABULARY = STOP + 1
SENTENCE, ASKED = 8, 3


def translation(seed: int) -> Int[Tensor, "W"]:
    """The word of the second language for each of the first."""
    return WORDS + torch.randperm(WORDS, generator=torch.Generator().manual_seed(seed))


def task_sentences(
    count: int, draw: torch.Generator, french_W: Tensor, *, held_out: bool, cue: int | None = None
) -> Int[Tensor, "N 8"]:
    """``w w w CUE a a a .`` with the answer that the cue asks for.

    Args:
        held_out: the fifth of all triples of words that no text contains beside a cue.
        cue: one task; None draws among all.
    """
    words_NW = torch.randint(WORDS, (6 * count + 100, ASKED), generator=draw)
    mine_N = (words_NW * torch.tensor([7, 3, 1])).sum(dim=1) % 5 == 0
    words_N3 = words_NW[mine_N if held_out else ~mine_N][:count]
    cue_N = torch.randint(len(CUES), (count,), generator=draw) if cue is None else torch.full((count,), cue)
    answers_CN3 = torch.stack([words_N3, words_N3.flip(1), french_W[words_N3]])
    answer_N3 = answers_CN3[cue_N, torch.arange(count)]
    return torch.cat([words_N3, 2 * WORDS + cue_N[:, None], answer_N3, torch.full((count, 1), STOP)], dim=1)


def plain_sentences(count: int, draw: torch.Generator) -> Int[Tensor, "N 8"]:
    """Seven words of one of the two languages."""
    words = torch.randint(WORDS, (count, SENTENCE - 1), generator=draw)
    words = words + WORDS * torch.randint(2, (count, 1), generator=draw)
    return torch.cat([words, torch.full((count, 1), STOP)], dim=1)


def corpus_rows(count: int, draw: torch.Generator, french_W: Tensor, *, tasks: bool = True) -> Int[Tensor, "N 8"]:
    """Sentences, half of which hold a task, or none with ``tasks=False``."""
    plain = plain_sentences(count, draw)
    with_task = task_sentences(count, draw, french_W, held_out=False)
    chosen = torch.rand(count, 1, generator=draw) < (0.5 if tasks else 0.0)
    return torch.where(chosen, with_task, plain)
