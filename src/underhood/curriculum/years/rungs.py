"""The models of the comparison: year, idea, what the source reports, and a spec of about 850,000 parameters.

All networks read the same tokens in the same batches with the same optimiser, AdamW at a rate of 0.003 (0.001 for the
Transformer of 2017, whose norms come last), so they differ in nothing but the model. The last two add what training
adds: today's optimiser with first weights that know how to copy, and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from underhood.core.protocols import ModelSpec
from underhood.models.decoder import DecoderSpec, qwen3_shaped
from underhood.models.ngram import NGramSpec
from underhood.models.nplm import NPLMSpec
from underhood.models.rnn import RNNSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.norm import LayerNormSpec, RMSNormSpec
from underhood.nn.positions import LearnedPositionSpec, SinusoidalPositionSpec
from underhood.nn.recurrence import Cell, RecurrenceSpec
from underhood.train.optim import AdamWSpec, MuonAdamWSpec, OptimizerSpec

CONTEXT = 128
WIDTH, LAYERS, HEADS = 128, 3, 4
"""Of the Transformers."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One model of the history.

    Attributes:
        year, name: when it was proposed for language, and its name.
        idea: what was new, in a few words.
        source: who wrote it, and where.
        paper: the source's own number, on its own data, in its own unit.
        evidence: ``verified`` in the source, or ``recalled``.
        page: the milestone that explains it, by its stem; empty if there is none yet.
        spec: the model for a vocabulary of the given size.
        optimizer: how it is trained; None for a model that counts.
        bytes: reads bytes and not tokens.
        copying: begins with a circuit that copies (see `underhood.models.copying`).
        times: trains so many times as long as the others.
    """

    year: int
    name: str
    idea: str
    source: str
    paper: str
    evidence: str
    page: str
    spec: Callable[[int], ModelSpec]
    optimizer: OptimizerSpec | None
    bytes: bool = False
    copying: bool = False
    times: int = 1


def _adam(lr: float) -> AdamWSpec:
    return AdamWSpec(lr=lr, weight_decay=0.0)


def _recurrent(cell: Cell, width: int, layers: int) -> Callable[[int], ModelSpec]:
    recurrence = RecurrenceSpec(cell=cell, projected=False)
    return lambda vocab: RNNSpec(
        vocab_size=vocab, context_length=CONTEXT, d_model=width, layers=layers, recurrence=recurrence
    )


def _decoder(vocab: int, block: BlockSpec, **more: object) -> DecoderSpec:
    shape = {"vocab_size": vocab, "context_length": CONTEXT, "d_model": WIDTH, "layers": LAYERS, "tied": True}
    return DecoderSpec(**shape, blocks=(block,), **more)  # type: ignore[arg-type]


def transformer(vocab: int) -> DecoderSpec:
    """The decoder of 2017 alone: norms after each part, ReLU, sinusoidal positions, embeddings times √D."""
    attention = AttentionSpec(heads=HEADS, rotary=None, bias=True, output_bias=True)
    mlp = MLPSpec(d_ff=4 * WIDTH, activation="relu")
    block = BlockSpec(mixer=attention, feedforward=mlp, norm=None, stream_norm=LayerNormSpec())
    return _decoder(
        vocab, block, norm=LayerNormSpec(), positions=SinusoidalPositionSpec(), embed_scale=float(WIDTH) ** 0.5
    )


def gpt2(vocab: int) -> DecoderSpec:
    """GPT-2: norms before each part, GELU, learned positions."""
    attention = AttentionSpec(heads=HEADS, rotary=None, bias=True, output_bias=True)
    block = BlockSpec(mixer=attention, feedforward=MLPSpec(d_ff=4 * WIDTH), norm=LayerNormSpec())
    return _decoder(vocab, block, norm=LayerNormSpec(), positions=LearnedPositionSpec())


def llama(vocab: int) -> DecoderSpec:
    """Llama: RMSNorm, rotary positions, SwiGLU, no biases."""
    block = BlockSpec(mixer=AttentionSpec(heads=HEADS), feedforward=GatedMLPSpec(d_ff=344), norm=RMSNormSpec())
    return _decoder(vocab, block)


_DEFAULT = Rung(
    year=2024,
    name="the default here",
    idea="Muon, and first weights that copy",
    source="Jordan et al. 2024, Olsson et al. 2022",
    paper="none that compares",
    evidence="recalled",
    page="p2021_induction",
    spec=lambda vocab: qwen3_shaped(vocab_size=vocab, context_length=CONTEXT, d_model=120, layers=2, heads=4, d_ff=328),
    optimizer=MuonAdamWSpec(matrix_lr=0.02, lr=0.01),
    copying=True,
)

RUNGS = (
    Rung(
        year=1948,
        name="pairs of letters",
        idea="count which letter follows which",
        source="Shannon 1948, 1951",
        paper="3.32 bits per letter (27 letters)",
        evidence="verified",
        page="p1948_shannon",
        spec=lambda vocab: NGramSpec(vocab_size=vocab, order=2),
        optimizer=None,
        bytes=True,
    ),
    Rung(
        year=1999,
        name="Kneser–Ney 5-gram",
        idea="long counts that lean on shorter ones",
        source="Chen & Goodman 1999",
        paper="perplexity 321 (Brown, in Bengio 2003)",
        evidence="verified",
        page="p1999_kneser_ney",
        spec=lambda vocab: NGramSpec(vocab_size=vocab, order=5),
        optimizer=None,
    ),
    Rung(
        year=2003,
        name="neural n-gram",
        idea="vectors of words, learnt while predicting",
        source="Bengio et al. 2003",
        paper="perplexity 252 (Brown, mixed with counts)",
        evidence="verified",
        page="p2003_nplm",
        spec=lambda vocab: NPLMSpec(
            vocab_size=vocab, context_length=CONTEXT, order=6, d_model=72, hidden=288, direct=False
        ),
        optimizer=_adam(3e-3),
    ),
    Rung(
        year=2010,
        name="recurrent network",
        idea="a state that carries all of the past",
        source="Mikolov et al. 2010",
        paper="perplexity about 50 % below an n-gram's",
        evidence="verified",
        page="p1990_elman_classes",
        spec=_recurrent("elman", 176, 2),
        optimizer=_adam(3e-3),
    ),
    Rung(
        year=2012,
        name="LSTM",
        idea="gates that keep the state over many steps",
        source="Sundermeyer et al. 2012",
        paper="perplexity about 8 % below a recurrent network's",
        evidence="verified",
        page="p1997_lstm",
        spec=_recurrent("lstm", 160, 1),
        optimizer=_adam(3e-3),
    ),
    Rung(
        year=2013,
        name="bag of word vectors",
        idea="no hidden layer: the mean of the last vectors",
        source="Mikolov et al. 2013",
        paper="24 % and 64 % of analogies, no perplexity",
        evidence="verified",
        page="p2013_word2vec",
        spec=lambda vocab: NPLMSpec(vocab_size=vocab, context_length=CONTEXT, order=6, d_model=208, hidden=0, bag=True),
        optimizer=_adam(3e-3),
    ),
    Rung(
        year=2017,
        name="Transformer",
        idea="attention: every token looks at all before it",
        source="Vaswani et al. 2017",
        paper="28.4 BLEU (English–German)",
        evidence="verified",
        page="p2017_transformer",
        spec=transformer,
        optimizer=_adam(1e-3),
    ),
    Rung(
        year=2019,
        name="GPT-2",
        idea="the decoder alone, norms first",
        source="Radford et al. 2019",
        paper="perplexity 29.41 (WikiText-2, 124 M)",
        evidence="verified",
        page="p2019_gpt2",
        spec=gpt2,
        optimizer=_adam(3e-3),
    ),
    Rung(
        year=2023,
        name="Llama",
        idea="rotary positions, RMSNorm, SwiGLU",
        source="Touvron et al. 2023",
        paper="68.9 % of MMLU (Llama 2, 70 B)",
        evidence="verified",
        page="p2023_llama2",
        spec=llama,
        optimizer=_adam(3e-3),
    ),
    _DEFAULT,
    replace(_DEFAULT, name="the same, twice as long", idea="time", times=2),
)
