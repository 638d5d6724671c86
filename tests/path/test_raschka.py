"""What the milestones of Raschka's book share, against plain PyTorch and brute force."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.data.batch import IGNORE
from underhood.path.lib.alpaca_rows import padded
from underhood.path.lib.default_start import default_start, raschka_shaped, smaller
from underhood.path.lib.two_subjects import SUBJECT_WORDS, messages
from underhood.path.lib.verbatim import copied_share, longest_copy

D, HEADS, LAYERS, VOCABULARY, CONTEXT = 24, 3, 2, 50, 12


class PlainBlock(nn.Module):
    """A block of chapter 4 in plain PyTorch; its layers are made in the chapter's order."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.output = nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(approximate="tanh"), nn.Linear(4 * D, D))
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        q, k, v = (
            layer(normed).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        return x + self.mlp(self.norm2(x))


class PlainGPT(nn.Module):
    """The chapter's model in plain PyTorch."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, D), nn.Embedding(CONTEXT, D)
        self.blocks = nn.Sequential(*[PlainBlock() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def test_default_start_draws_the_weights_of_plain_pytorch():
    spec = smaller(raschka_shaped(context_length=CONTEXT), vocab_size=VOCABULARY, d_model=D, layers=LAYERS, heads=HEADS)
    before = torch.random.get_rng_state()
    ours = default_start(spec, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    theirs = PlainGPT().eval()
    ids = torch.randint(VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_copied_share_counts_the_characters_that_brute_force_marks(seed: int):
    draw = random.Random(seed)
    text, source = ("".join(draw.choice("ab") for _ in range(draw.randrange(5, 60))) for _ in range(2))
    run = draw.randrange(2, 7)
    marked = set()
    for start in range(len(text) - run + 1):
        if text[start : start + run] in source:
            marked.update(range(start, start + run))
    assert copied_share(text, source, run=run) == pytest.approx(len(marked) / len(text))


@pytest.mark.parametrize("seed", range(10))
def test_longest_copy_is_the_longest_common_substring(seed: int):
    draw = random.Random(seed)
    text, source = ("".join(draw.choice("abc") for _ in range(40)) for _ in range(2))
    common = {text[a:b] for a in range(40) for b in range(a + 1, 41) if text[a:b] in source}
    length = max(map(len, common))
    longest = longest_copy(text, source)
    assert len(longest) == length
    assert longest in text
    assert longest in source


def test_padded_rows_have_the_loss_of_the_rows_alone():
    """Padding and its masked targets change neither the sum of the losses nor their count."""
    table = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))  # scores of the next id
    rows = [([3, 4, 5, 6], 2), ([7, 8], 1), ([9, 10, 11, 12, 13], 3)]
    batch = padded(rows, 29, masked=True)
    sums = [F.cross_entropy(table[ids][o - 1 :], torch.tensor([*ids[o:], 29]), reduction="sum") for ids, o in rows]
    whole = F.cross_entropy(table[batch.tokens].flatten(0, 1), batch.targets.flatten(), reduction="sum")
    torch.testing.assert_close(whole, sum(sums))
    assert int((batch.targets != IGNORE).sum()) == sum(len(ids) - opening + 1 for ids, opening in rows)


def test_messages_have_words_of_their_own_subject_only():
    words_NT, subjects_N = messages(200, seed=0)
    for subject in (0, 1):
        used = words_NT[subjects_N == subject]
        assert not (used // SUBJECT_WORDS == 1 - subject).any()
    assert (words_NT[:, 0] >= 2 * SUBJECT_WORDS).all()
