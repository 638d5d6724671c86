"""What every `LanguageModel` must keep, from the n-gram to the decoder; and proof that each check can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underhood.core.checkpoint import load_module, module_tensors
from underhood.core.config import from_json, to_json
from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache
from underhood.infer.sequence_runner import new_cache
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.models.mixture import Mixture, MixtureSpec
from underhood.models.ngram import NGram, NGramSpec
from underhood.models.nplm import NPLM, NPLMSpec
from underhood.models.rnn import RNN, RNNSpec
from underhood.models.wavenet import WaveNet, WaveNetSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.batch_norm import BatchNormSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import LearnedPositionSpec, SinusoidalPositionSpec
from underhood.nn.recurrence import Cell, RecurrenceSpec
from underhood.nn.relative_attention import RelativeAttentionSpec

V, T = 31, 12
Spec = DecoderSpec | NGramSpec | NPLMSpec | RNNSpec | WaveNetSpec | MixtureSpec
Model = Decoder | NGram | NPLM | RNN | WaveNet | Mixture


def decoder(mixer: AttentionSpec | RecurrenceSpec | RelativeAttentionSpec, **change: object) -> DecoderSpec:
    block = BlockSpec(mixer=mixer, feedforward=GatedMLPSpec(d_ff=24))
    return DecoderSpec(
        **{"vocab_size": V, "context_length": 64, "d_model": 16, "layers": 2, "blocks": (block,)} | change
    )


def gpt2_shaped(width: int = 16, vocab_size: int = V) -> DecoderSpec:
    attention = AttentionSpec(heads=2, rotary=None, bias=True, output_bias=True)
    block = BlockSpec(mixer=attention, feedforward=MLPSpec(d_ff=4 * width), norm=LayerNormSpec())
    return DecoderSpec(
        vocab_size=vocab_size,
        context_length=64,
        d_model=width,
        layers=2,
        blocks=(block,),
        norm=LayerNormSpec(),
        tied=True,
        positions=LearnedPositionSpec(),
    )


def recurrent(cell: Cell, **change: object) -> RNNSpec:
    recurrence = RecurrenceSpec(cell=cell, projected=False)
    return RNNSpec(**{"vocab_size": V, "context_length": 64, "d_model": 16, "recurrence": recurrence} | change)


SPECS: dict[str, Spec] = {
    "mha": decoder(AttentionSpec(heads=2)),
    "gqa": decoder(AttentionSpec(heads=4, kv_heads=2)),
    "mqa": decoder(AttentionSpec(heads=4, kv_heads=1)),
    "wide_heads": decoder(AttentionSpec(heads=2, head_dim=12)),
    "window": decoder(AttentionSpec(heads=2, window=3)),
    "window_alternating": decoder(
        AttentionSpec(heads=2),
        blocks=tuple(
            BlockSpec(mixer=AttentionSpec(heads=2, kv_heads=groups, window=window), feedforward=GatedMLPSpec(d_ff=24))
            for groups, window in ((1, 3), (2, None))
        ),
    ),
    "biased": decoder(AttentionSpec(heads=2, bias=True)),
    "qwen3_tied": qwen3_shaped(
        vocab_size=V, context_length=64, d_model=16, layers=2, heads=2, kv_heads=1, d_ff=24, tied=True
    ),
    "gpt2": gpt2_shaped(),
    "post_norm": decoder(
        AttentionSpec(heads=2),
        blocks=(
            BlockSpec(
                mixer=AttentionSpec(heads=2), feedforward=MLPSpec(d_ff=24), norm=None, stream_norm=LayerNormSpec()
            ),
        ),
    ),
    "sinusoidal": decoder(AttentionSpec(heads=2, rotary=None), positions=SinusoidalPositionSpec(), embed_scale=4.0),
    "relative": decoder(RelativeAttentionSpec(heads=2, clip=3)),
    "relative_keys": decoder(RelativeAttentionSpec(heads=2, clip=5, values=False, bias=True)),
    "elman": recurrent("elman", layers=2),
    "gru": recurrent("gru", layers=2),
    "lstm": recurrent("lstm"),
    "lstm_tied": recurrent("lstm", tied=True),
    "lstm_in_blocks": decoder(RecurrenceSpec(hidden=12)),
    "nplm": NPLMSpec(vocab_size=V, order=4, d_model=8, hidden=6),
    "cbow": NPLMSpec(vocab_size=V, order=6, d_model=96, hidden=0, bag=True),
    "nplm_undirected": NPLMSpec(vocab_size=V, order=3, d_model=8, hidden=32, direct=False),
    "nplm_batch_norm": NPLMSpec(vocab_size=V, order=4, d_model=8, hidden=32, direct=False, norm=BatchNormSpec()),
    "nplm_deep": NPLMSpec(vocab_size=V, order=4, d_model=8, hidden=24, layers=3, norm=LayerNormSpec()),
    "wavenet": WaveNetSpec(vocab_size=V, embed_dim=8, d_model=16),
    "wavenet_gated": WaveNetSpec(
        vocab_size=V, embed_dim=16, d_model=16, layers=2, gated=True, residual=True, norm=None
    ),
    "wavenet_batch_norm": WaveNetSpec(vocab_size=V, embed_dim=6, d_model=24, norm=BatchNormSpec()),
    "ngram": NGramSpec(vocab_size=V, order=4),
    "bigram": NGramSpec(vocab_size=V, order=2),
    "nplm_and_ngram": MixtureSpec(
        neural=NPLMSpec(vocab_size=V, order=4, d_model=8, hidden=6),
        counted=NGramSpec(vocab_size=V, order=3),
        share=0.6,
    ),
    "lstm_and_ngram": MixtureSpec(neural=recurrent("lstm", layers=2), counted=NGramSpec(vocab_size=V, order=2)),
}


def built(spec: Spec) -> Model:
    """The model with weights that let every part act (fresh weights would start the outputs at zero)."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(spec, NGramSpec):
        model = spec.build()
        model.fit([torch.randint(V, (length,), generator=generator).tolist() for length in (40, 9, 23)])
        return model
    model = spec.build()
    if isinstance(model, Mixture):
        model.count_documents([torch.randint(V, (length,), generator=generator).tolist() for length in (40, 9, 23)])
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = (0.3 if parameter.ndim == 2 else 0.1) * (3.0 if "query" in name or "key" in name else 1.0)
        parameter.data = noise * scale + float("norm" in name and name.endswith("weight"))
    return model.eval()


@pytest.fixture(params=SPECS, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    return built(SPECS[request.param])


def random_tokens(rows: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, count), generator=torch.Generator().manual_seed(seed))


def cache_for(model: LanguageModel, batch: int, capacity: int) -> ContiguousCache:
    cache = new_cache(model.model if isinstance(model, Broken) else model, batch, capacity)
    assert cache is not None
    return cache


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)


# The checks: each takes any language model and fails by AssertionError.


@torch.no_grad()
def check_shape(model: LanguageModel) -> None:
    logits_BTV = model(random_tokens(3, T))
    assert logits_BTV.shape == (3, T, model.vocab_size)
    assert logits_BTV.isfinite().all()


@torch.no_grad()
def check_causality(model: LanguageModel) -> None:
    tokens = random_tokens(2, T)
    before = model(tokens)
    for location in (0, 5, T - 1):
        changed = tokens.clone()
        changed[:, location] = (changed[:, location] + 1) % V
        after = model(changed)
        assert_same(after[:, :location], before[:, :location])
        assert not torch.allclose(after[:, location], before[:, location]), "a token has no effect on what follows it"


@torch.no_grad()
def check_batch_is_single(model: LanguageModel) -> None:
    tokens = random_tokens(4, T)
    assert_same(model(tokens), torch.cat([model(row[None]) for row in tokens]))


@torch.no_grad()
def check_cache(model: LanguageModel, chunks: tuple[int, ...]) -> None:
    """In float64 both ways agree to 1e-9. In float32 the cache adds at most 2e-5 to the uncached pass's own error (the
    attention kernel's: 7e-5 for heads of 12 on a CPU without AVX-512)."""
    tokens = random_tokens(2, T)
    cached, uncached = in_chunks(model, tokens, chunks), model(tokens)
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        assert_same(cached, uncached)
        return
    exact = copy.deepcopy(model).double()
    reference = exact(tokens)
    torch.testing.assert_close(in_chunks(exact, tokens, chunks), reference, rtol=1e-9, atol=1e-9)
    assert (cached - reference).abs().max() <= 2e-5 + (uncached - reference).abs().max()


def in_chunks(model: LanguageModel, tokens: Tensor, chunks: tuple[int, ...]) -> Tensor:
    """Logits of tokens that are read chunk by chunk through a cache."""
    cache = cache_for(model, *tokens.shape)
    logits_BTV = torch.cat([model(chunk, cache=cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    assert cache.length == tokens.shape[1]
    return logits_BTV


@torch.no_grad()
def check_left_padding(model: LanguageModel, chunks: tuple[int, ...] = (T,)) -> None:
    """Rows of unequal length, padded with two different fillers, with and without a cache, equal the rows alone."""
    lengths = (T, 7, 1, 4)
    rows = [random_tokens(1, length, seed)[0] for seed, length in enumerate(lengths)]
    positions = torch.stack([torch.arange(T) - (T - length) for length in lengths]).clamp(min=-1)
    for filler in (0, V - 1):
        tokens = torch.stack([torch.cat((torch.full((T - len(row),), filler), row)) for row in rows])
        following = random_tokens(len(rows), 3, 9)
        cache = cache_for(model, len(rows), T + 3)
        places = positions.split(chunks, dim=1)
        cached = [
            model(piece, cache=cache, positions=at) for piece, at in zip(tokens.split(chunks, 1), places, strict=True)
        ]
        cached += [model(following[:, :2], cache=cache), model(following[:, 2:], cache=cache)]
        whole = model(tokens, positions=positions)
        for index, row in enumerate(rows):
            alone = model(torch.cat((row, following[index]))[None])[0]
            assert_same(torch.cat(cached, dim=1)[index, T - len(row) :], alone)
            assert_same(whole[index, T - len(row) :], alone[: len(row)])


@torch.no_grad()
def check_documents(model: LanguageModel) -> None:
    """Packed documents (one of a single token among them, then padding) read as each one does alone."""
    lengths = (5, 1, 4, 1)
    documents = [random_tokens(1, length, seed)[0] for seed, length in enumerate(lengths)]
    tokens = torch.cat([*documents, torch.zeros(2, dtype=torch.long)])[None]
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.tensor([-1, -1])])[None]
    alone = torch.cat([model(document[None])[0] for document in documents])
    assert_same(model(tokens, positions=positions)[0, : sum(lengths)], alone)
    cache = cache_for(model, 1, T + 1)
    parts = [model(tokens[:, piece], cache=cache, positions=positions[:, piece]) for piece in (slice(7), slice(7, 11))]
    assert_same(torch.cat(parts, dim=1)[0], alone)


@torch.no_grad()
def check_positions_none(model: LanguageModel) -> None:
    tokens = random_tokens(2, T)
    assert_same(model(tokens, positions=torch.arange(T)[None]), model(tokens))


@pytest.mark.parametrize(
    "check",
    [check_shape, check_causality, check_batch_is_single, check_left_padding, check_documents, check_positions_none],
)
def test_language_model_contract(model: Model, check: Callable[[LanguageModel], None]) -> None:
    assert isinstance(model, LanguageModel)
    check(model)


@pytest.mark.parametrize("chunks", [(1,) * T, (T - 1, 1), (4, 1, 5, 2), (T,)])
def test_language_model_cached_matches_uncached(model: Model, chunks: tuple[int, ...]) -> None:
    check_cache(model, chunks)


@pytest.mark.parametrize("chunks", [(5, 7), (1,) * T])
def test_language_model_padded_prefill_in_chunks_matches_rows_alone(model: Model, chunks: tuple[int, ...]) -> None:
    check_left_padding(model, chunks)


def test_language_model_saved_and_loaded_is_identical(model: Model, tmp_path) -> None:
    save_file(module_tensors(model), tmp_path / "model.safetensors")
    again = from_json(type(model.spec), to_json(model.spec)).build().eval()
    tensors = load_file(tmp_path / "model.safetensors")
    if isinstance(again, NGram | Mixture):
        again.load_state_dict(tensors)  # its tables have no fixed size
    else:
        load_module(again, tensors, "file")
    tokens = random_tokens(2, T)
    assert torch.equal(again(tokens), model(tokens))


@pytest.mark.parametrize("name", SPECS)
def test_language_model_spec_round_trips(name: str) -> None:
    assert from_json(type(SPECS[name]), to_json(SPECS[name])) == SPECS[name]


def nats_per_token(model: Model, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@pytest.mark.parametrize("name", [name for name in SPECS if "gram" not in name])
def test_decoder_overfits_one_batch(name: str) -> None:
    spec = SPECS[name]
    model = spec.initialize(seed=0)
    tokens = random_tokens(4, T, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(80):
        loss = nats_per_token(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The first token of a row is not predicted, the others follow a history that no other row shares.
    assert nats_per_token(model, tokens) < 0.1


def test_ngram_overfits_one_batch() -> None:
    tokens = random_tokens(4, T, seed=3)
    fitted = NGramSpec(vocab_size=V, order=4, discounts=(0.01,) * 4).build().fit(tokens.tolist())
    assert nats_per_token(fitted, tokens) < 0.1
    assert nats_per_token(fitted, random_tokens(4, T, seed=4)) > 2.0


# Proof that the checks can fail: one idea is taken away from a model that passes them all.


@dataclass
class Broken:
    """A model with one thing wrong."""

    model: Model
    tokens: Callable[[Tensor], Tensor] = lambda tokens: tokens
    positions: Callable[[Tensor | None], Tensor | None] = lambda positions: positions
    logits: Callable[[Tensor], Tensor] = lambda logits: logits
    vocab_size: int = V
    context_length: int | None = 64

    def __call__(self, tokens: Tensor, *, cache=None, positions: Tensor | None = None) -> Tensor:
        return self.logits(self.model(self.tokens(tokens), cache=cache, positions=self.positions(positions)))


@pytest.mark.parametrize("name", ["gqa", "gpt2", "ngram"])
@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_causality, {"tokens": lambda tokens: tokens.flip(1)}),
        (check_causality, {"logits": lambda logits: logits.roll(1, dims=1)}),
        (check_batch_is_single, {"logits": lambda logits: logits - logits.mean(dim=0)}),
        (check_left_padding, {"positions": lambda positions: None}),
        (check_documents, {"positions": lambda positions: None}),
        (check_positions_none, {"positions": lambda positions: None if positions is None else positions * 0}),
    ],
)
def test_contract_catches_a_model_that_breaks_it(name: str, check: Callable, wrong: dict) -> None:
    model = built(SPECS[name])
    check(Broken(model))
    with pytest.raises(AssertionError):
        check(Broken(model, **wrong))


def _no_future(ctx: ForwardContext, keep: str) -> Callable:
    """`ForwardContext.mask` without one of its conditions."""
    order_S = torch.arange(ctx.positions_BS.shape[1])
    order_T = order_S[-ctx.positions_BT.shape[1] :]
    causal = (order_S <= order_T[:, None])[None]
    real = (ctx.positions_BS >= 0)[:, None, :]
    own = order_S == order_T[:, None]
    return {"causal": causal | own, "padding": (causal & real) | own, "nothing": torch.ones_like(causal)}[keep][:, None]


@pytest.mark.parametrize(
    ("keep", "check"),
    [
        ("nothing", check_causality),
        ("causal", check_left_padding),
        ("causal", check_documents),
        ("padding", check_documents),
    ],
)
def test_contract_needs_each_part_of_the_mask(keep: str, check: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(SPECS["gqa"])
    check(model)
    monkeypatch.setattr(ForwardContext, "causal_only", lambda self, rule: False)
    check(model)  # the mask alone says the same as the fast causal path
    monkeypatch.setattr(ForwardContext, "mask", lambda self, rule: _no_future(self, keep))
    with pytest.raises(AssertionError):
        check(model)


def test_contract_needs_the_cache_to_keep_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    extend = ContiguousCache.extend
    from_zero = lambda self, count, positions: (torch.arange(count)[None], extend(self, count, positions)[1])  # noqa: E731
    monkeypatch.setattr(ContiguousCache, "extend", from_zero)
    with pytest.raises(AssertionError):
        check_cache(built(SPECS["gqa"]), (6, 6))
