"""Architectures to train from scratch, by the names of the option ``--architecture``.

A new family is one more function here: from the vocabulary and the proportions that the planner chose to a spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from underhood.core.protocols import ModelSpec
from underhood.models.decoder import DecoderSpec, qwen3_shaped
from underhood.models.gpt2 import gpt2_shaped
from underhood.models.mixture import MixtureSpec
from underhood.models.ngram import NGramSpec
from underhood.models.nplm import NPLMSpec
from underhood.models.rnn import RNNSpec
from underhood.models.wavenet import WaveNetSpec
from underhood.nn.convolution import ShortConvolutionSpec
from underhood.nn.recurrence import Cell, RecurrenceSpec


def gated_convolution(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> DecoderSpec:
    """The default decoder with gated convolutions over 8 tokens in place of attention; it needs no heads."""
    spec = qwen3_shaped(
        vocab_size=vocab_size, context_length=context_length, d_model=d_model, layers=layers, heads=heads
    )
    return replace(spec, blocks=(replace(spec.blocks[0], mixer=ShortConvolutionSpec(taps=8)),))


def ngram(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> NGramSpec:
    """A 5-gram with modified Kneser–Ney smoothing; it has no width, layers or heads."""
    return NGramSpec(vocab_size=vocab_size, order=5)


def nplm(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> NPLMSpec:
    """Bengio's neural 6-gram, with as many hidden units as a vector is wide; it has no layers or heads."""
    return NPLMSpec(vocab_size=vocab_size, context_length=context_length, d_model=d_model, hidden=d_model, direct=False)


def cbow(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> NPLMSpec:
    """A continuous bag of the last ten tokens: their mean vector predicts the next; it has no layers or heads."""
    return NPLMSpec(vocab_size=vocab_size, context_length=context_length, order=11, d_model=d_model, hidden=0, bag=True)


def wavenet(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> WaveNetSpec:
    """Gated dilated convolutions with residual connections over 32 tokens, or more with more layers; no heads."""
    return WaveNetSpec(
        vocab_size=vocab_size,
        context_length=context_length,
        embed_dim=d_model,
        d_model=d_model,
        layers=max(layers, 5),
        gated=True,
        residual=True,
    )


def nplm_trigram(
    *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
) -> MixtureSpec:
    """`nplm` mixed in halves with a trigram, as Bengio et al. 2003 publish it."""
    shape = {"d_model": d_model, "layers": layers, "heads": heads}
    neural = nplm(vocab_size=vocab_size, context_length=context_length, **shape)
    return MixtureSpec(neural=neural, counted=NGramSpec(vocab_size=vocab_size, order=3))


def _recurrent(cell: Cell) -> Callable[..., RNNSpec]:
    def spec(
        *, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int, kv_heads: int | None = None
    ) -> RNNSpec:
        recurrence = RecurrenceSpec(cell=cell, projected=False)
        return RNNSpec(
            vocab_size=vocab_size, context_length=context_length, d_model=d_model, layers=layers, recurrence=recurrence
        )

    return spec


ARCHITECTURES: Mapping[str, Callable[..., ModelSpec]] = {
    "qwen3": qwen3_shaped,
    "gpt2": gpt2_shaped,
    "gated-conv": gated_convolution,
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    "elman": _recurrent("elman"),
    "nplm": nplm,
    "nplm-trigram": nplm_trigram,
    "cbow": cbow,
    "wavenet": wavenet,
    "ngram": ngram,
}
