"""A head start: a decoder that copies from its context before it has learnt anything.

Text repeats itself: names, terms and phrases come back within a page, so whoever has seen ``… A B … A`` bets on B. In
attention models two heads in successive layers do that (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). One looks at the token before and notes it in the residual stream; the other, an *induction head*, looks
for a place whose note is the current token and copies the token there. Training finds this circuit late and all of a
sudden (Olsson et al. 2022, "In-context Learning and Induction Heads"), after far more tokens than a few minutes on a
laptop can show it. `begin_copying` writes it into the first weights, where training can refine it, reuse it or throw it
away. It is a way to begin and nothing else: spec, parameters and exported files stay those of the plain model.

The residual stream of width W is divided among codes of a token:

- *own* (the first half): its embedding. Dimension 0 is alike for all tokens, so that a head can go by place alone.
- *before* (a sixth): what the first head noted of the token before.
- *second before* (a sixth): what another head of that layer noted of the token before that. With it the induction head
  looks for places where the last *two* tokens agree: text that repeats its words in new orders (``os.path``,
  ``os.path.join``) is copied without leaps. Narrow models do without, and have a quarter for *before*.
- *next* (as wide as *before*): what the induction head copied. The unembedding scores every token by its code in here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from underhood.core.protocols import ModelSpec
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import Attention, attention_of

CONSTANT = 3.0
"""Dimension 0 of every embedding, in standard deviations of the others: it outweighs what differs between tokens."""

FAST, SLOW = 1 / 3, 2 / 5
"""Rotary pairs from the fastest: those before `FAST` tell places next to each other apart; those after `SLOW` hardly
turn within a page and compare contents."""

WIDE_ENOUGH = 160
"""Width from which codes of a sixth of it tell the tokens apart well enough to look two tokens back."""

QUIET = 0.3
"""Size of the random weights left of the head that goes by place; the one that compares contents keeps a third."""

SURE = 6.0
"""About the score, in nats, that a wholly copied token gets before training."""


def can_copy(spec: ModelSpec) -> bool:
    """Whether `begin_copying` knows this shape: two layers of plain rotary attention with QK-norm, scores of its own.

    QK-norm sets how sharply a head can look; without it the weights' size would have to.
    """
    if not isinstance(spec, DecoderSpec):
        return False
    first_two = [spec.block(layer) for layer in range(min(2, spec.layers))]
    return (
        len(first_two) == 2
        and not spec.tied
        and spec.d_model >= 32
        and all(
            block.norm is not None and block.post_norm is None and _looks(block.mixer, spec.d_model)
            for block in first_two
        )
    )


def _looks(mixer: object, width: int) -> bool:
    mixer = attention_of(mixer)
    return (
        mixer is not None
        and mixer.rotary is not None
        and mixer.rotary.fraction == 1
        and mixer.qk_norm is not None
        and not mixer.qk_norm_whole
        and not mixer.bias
        and mixer.softcap is None
        and mixer.head_dim_for(width) >= 16
    )


@torch.no_grad()
def begin_copying(model: Decoder, *, seed: int, embed_std: float) -> Decoder:
    """Writes the circuit over a fresh model: heads 0 and 1 of layer 0, head 0 of layer 1, embedding and unembedding.

    Args:
        embed_std: the standard deviation of the embeddings.

    Raises:
        ValueError: a shape that `can_copy` does not know.
    """
    if not can_copy(model.spec):
        raise ValueError("begin_copying takes two layers of rotary attention with QK-norm, untied, at least 32 wide")
    generator = torch.Generator().manual_seed(seed)
    first, second = (_attention(model, layer) for layer in (0, 1))
    width = model.spec.d_model
    own = width // 2
    looks_back = 2 if first.spec.heads > 1 and width >= WIDE_ENOUGH else 1
    room = min(first.head_dim, second.head_dim, len(_rows_for_content(second)) // looks_back)
    note = min(width // (4 if looks_back == 1 else 6), room)
    notes = [slice(own + n * note, own + (n + 1) * note) for n in range(looks_back)]
    following = slice(own + looks_back * note, own + (looks_back + 1) * note)

    embedding = model.embed.weight
    embedding[:, own:] = 0
    embedding[:, 0] = CONSTANT * embed_std

    note_code, copy_code = (_code(note, own, generator) for _ in range(2))
    _look_back(first, looks_back, generator)
    for head, note_dimensions in enumerate(notes):
        _carry(first, head, note_code, note_dimensions, embed_std)
    _look_for_notes(second, note_code, notes, generator)
    _carry(second, 0, copy_code, following, embed_std)

    code_VN = embedding[:, :own] @ copy_code.T
    code_VN /= code_VN.square().mean(dim=1, keepdim=True).sqrt()
    model.unembed.weight[:, following] = code_VN * (SURE / note)
    return model


def _attention(model: Decoder, layer: int) -> Attention:
    return cast(Attention, model.blocks[layer].mixer)  # `can_copy` has looked at the spec


def _code(size: int, own: int, generator: torch.Generator) -> Tensor:
    """A random map from *own* to `size` numbers: other tokens, nearly orthogonal codes. The constant is left out."""
    code = torch.randn(size, own, generator=generator) / math.sqrt(own)
    code[:, 0] = 0
    return code


def _look_back(attention: Attention, heads: int, generator: torch.Generator) -> None:
    """Head 0 attends to the token before, head 1 to the one before that, whatever the tokens are.

    Query and key at places p and j score ``Σ cos(f (p − j) − (φ_k − φ_q))`` over rotary pairs of frequency f and phases
    φ; with ``φ_k = φ_q + n f`` the sum is greatest where p − j = n.
    """
    frequency = _frequencies(attention)
    half = len(frequency)
    pairs = torch.arange(max(1, int(half * FAST)))
    phase = 2 * math.pi * torch.rand(len(pairs), generator=generator)
    keys = {_key_head(attention, head): phase + frequency[pairs] for head in range(heads)}
    queries = {head: phase - head * frequency[pairs] for head in range(heads)}
    for projection, angles in ((attention.query, queries), (attention.key, keys)):
        for head, angle in angles.items():
            weight = _head(projection.weight, attention, head)
            weight *= QUIET
            weight[pairs, 0], weight[half + pairs, 0] = angle.cos(), angle.sin()


def _look_for_notes(
    attention: Attention, note_code: Tensor, notes: Sequence[slice], generator: torch.Generator
) -> None:
    """Head 0 attends to places whose note of the token before is the code of the current token.

    Where there are notes of the token before that, these must be the note of the token before the current one.
    """
    query, key = (_head(projection.weight, attention, 0) for projection in (attention.query, attention.key))
    for weight in (query, key):
        weight *= QUIET / 3
        weight[:, 0] = 0
    rows = _rows_for_content(attention)
    size = max(len(rows), len(note_code) * len(notes))
    spread = torch.linalg.qr(torch.randn(size, size, generator=generator))[0][: len(rows)]
    shares = spread[:, : len(note_code) * len(notes)].chunk(len(notes), dim=1)
    query[rows, : note_code.shape[1]] = shares[0] @ note_code
    for share, note in zip(shares, notes, strict=True):
        key[rows, note] = share
    for share, note in zip(shares[1:], notes, strict=False):
        query[rows, note] = share


def _rows_for_content(attention: Attention) -> Tensor:
    """The dimensions of a head that hardly turn within a page."""
    half = len(_frequencies(attention))
    slow = torch.arange(int(half * SLOW), half)
    return torch.cat((slow, half + slow))


def _carry(attention: Attention, head: int, code: Tensor, to: slice, size: float) -> None:
    """What a head attends to goes, as its code, to the dimensions `to` of the residual stream, `size` in scale."""
    value = _head(attention.value.weight, attention, _key_head(attention, head))
    output = attention.output.weight[:, head * attention.head_dim : (head + 1) * attention.head_dim]
    value.zero_()
    output.zero_()
    value[: len(code), : code.shape[1]] = code
    output[to, : len(code)] = torch.eye(len(code)) * size


def _key_head(attention: Attention, head: int) -> int:
    """The key-value head that a query head reads."""
    return head * attention.spec.groups // attention.spec.heads


def _head(weight: Tensor, attention: Attention, head: int) -> Tensor:
    """The rows of a projection that belong to one of its heads, as a view."""
    return weight[head * attention.head_dim : (head + 1) * attention.head_dim]


def _frequencies(attention: Attention) -> Tensor:
    assert attention.spec.rotary is not None
    return attention.spec.rotary.frequencies(attention.head_dim, torch.device("cpu"))
