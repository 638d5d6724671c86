"""Alammar 2018: the steps of self-attention, one after the other, against what the library's decoder computes."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.inspect.trace import Trace, trace
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.encoder_decoder import original_transformer
from underhood.nn.attention import Attention, AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import SinusoidalPositionSpec
from underhood.path.lib.in_memory import as_loaded, with_random_layers
from underhood.text.characters import CharacterTokenizer

WORDS = "thinking machines"
HEADS, HEAD_DIM = 4, 8


def run(trial: Trial) -> None:
    scale = 1.0 if trial.ablated("divisor") else 64**-0.5
    weights = (torch.tensor([112.0, 96.0]) * scale).softmax(dim=0)
    trial.measure("post", float(weights[0]))
    trial.measure("widths", left_over())
    for seed in trial.each_seed():
        model = built(seed)
        loaded = as_loaded(model, CharacterTokenizer.from_texts(WORDS))
        seen = trace(loaded, WORDS, ("residual", "mixer", "heads", "query", "key"))
        read = by_hand(model, list(seen.ids), divided=not trial.ablated("divisor"))
        trial.measure("steps", float((mixed(model, read) - seen["mixer.0"]).abs().max()))
        apart = sum(head_TK @ rows_DK.T for head_TK, rows_DK in zip(read, rows_of_output(model), strict=True))
        trial.measure("sum", float((apart - mixed(model, read)).abs().max()))
        if seed == 0 and not trial.is_ablation:
            show(trial, seen)


def by_hand(model: Decoder, ids: list[int], *, divided: bool = True) -> Tensor:
    """What each head of the first layer reads (H, T, K), in the post's steps."""
    norm, attention = model.get_submodule("blocks.0.mixer_norm"), attention_of(model)
    assert model.position_embed is not None
    embedded_TD = model.embed(torch.tensor(ids)) + model.position_embed(torch.arange(len(ids)))
    normed_TD = norm(embedded_TD)  # not in the post: its norm comes after
    heads = []
    for head in range(HEADS):
        rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        q_TK, k_TK, v_TK = (
            normed_TD @ layer.weight[rows].T for layer in (attention.query, attention.key, attention.value)
        )
        mixed_TK = []
        for at, query in enumerate(q_TK):
            scores = k_TK[: at + 1] @ query  # a score for this word and each before it
            scores = scores / HEAD_DIM**0.5 if divided else scores
            weights = scores.softmax(dim=0)
            mixed_TK.append(weights @ v_TK[: at + 1])
        heads.append(torch.stack(mixed_TK))
    return torch.stack(heads).detach()


def mixed(model: Decoder, read_HTK: Tensor) -> Tensor:
    """The heads side by side, times the output matrix (T, D)."""
    return attention_of(model).output(read_HTK.transpose(0, 1).flatten(1)).detach()


def rows_of_output(model: Decoder) -> tuple[Tensor, ...]:
    """The output matrix in one piece per head, each (D, K)."""
    return attention_of(model).output.weight.detach().split(HEAD_DIM, dim=1)


def attention_of(model: Decoder) -> Attention:
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, Attention)
    return mixer


def built(seed: int) -> Decoder:
    """A small decoder with sinusoidal positions, whose every part writes something."""
    mixer = AttentionSpec(heads=HEADS, head_dim=HEAD_DIM, rotary=None)
    block = BlockSpec(mixer=mixer, feedforward=MLPSpec(d_ff=64), norm=LayerNormSpec())
    spec = DecoderSpec(
        vocab_size=len(set(WORDS)),
        context_length=32,
        d_model=HEADS * HEAD_DIM,
        layers=2,
        blocks=(block,),
        norm=LayerNormSpec(),
        positions=SinusoidalPositionSpec(),
    )
    return with_random_layers(spec.initialize(seed=seed, embed_std=1.0), seed).eval()


def left_over() -> float:
    """Dimensions of the stream that the base Transformer's heads don't fill."""
    spec = original_transformer(vocab_size=37_000, context_length=512)
    mixer = spec.encoder[0].sublayers[0].layer
    assert isinstance(mixer, AttentionSpec)
    return float(spec.d_model - mixer.heads * 64)


def show(trial: Trial, seen: Trace) -> None:
    trial.figure(
        Heat(
            title="Weights of one head of a model that has learnt nothing yet",
            values=tuple(map(tuple, seen.pattern(0, [0])[0].tolist())),
            rows=seen.pieces,
            columns=seen.pieces,
            note="Each letter takes from itself and from those before it.",
        )
    )
