"""Batched scores against one-by-one scores computed from plain logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Bigram

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE, Batch
from underhood.evals import scoring
from underhood.evals.scoring import Continuation, score_continuations, target_log_probs
from underhood.models.decoder import qwen3_shaped
from underhood.models.ngram import NGramSpec

V = 23


def decoder(context: int = 40):
    spec = qwen3_shaped(vocab_size=V, context_length=context, d_model=16, layers=2, heads=2, kv_heads=1, d_ff=24)
    model = spec.initialize(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # nothing stays at zero, so that attention has a say
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def ngram():
    rng = np.random.default_rng(0)
    return NGramSpec(vocab_size=V, order=4).build().fit([rng.integers(0, V, 40).tolist() for _ in range(20)])


MODELS = {"decoder": decoder, "ngram": ngram, "other": lambda: Bigram(V)}


def pieces(count: int = 25) -> list[Continuation]:
    rng = np.random.default_rng(5)
    cut = lambda: tuple(rng.integers(0, V, rng.integers(1, 15)).tolist())  # noqa: E731
    return [Continuation(cut(), cut()) for _ in range(count)]


def one_by_one(model, piece: Continuation) -> float:
    with torch.no_grad():
        ids = torch.tensor([[*piece.context, *piece.tokens]])
        logs = model(ids[:, :-1]).double().log_softmax(-1)[0]
    start = len(piece.context) - 1
    return sum(float(logs[start + i, token]) for i, token in enumerate(piece.tokens))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("batch_tokens", [1, 60, 8192])
def test_continuation_scores_in_batches_match_one_by_one(name, batch_tokens):
    model = MODELS[name]().eval()
    got = score_continuations(model, pieces(), batch_tokens=batch_tokens)
    np.testing.assert_allclose(got, [one_by_one(model, piece) for piece in pieces()], atol=1e-5)


def test_continuation_batches_stay_within_their_size_and_like_lengths_go_together():
    model = Bigram(V)
    everything = pieces(60)
    score_continuations(model, everything, batch_tokens=64)
    assert all(rows * width <= 64 for rows, width in model.calls)
    needed = sum(len(piece.context) + len(piece.tokens) - 1 for piece in everything)
    assert sum(rows * width for rows, width in model.calls) < 1.15 * needed
    assert model.training  # the mode it came in


def test_continuation_context_too_long_for_the_model_loses_its_oldest_tokens():
    model = decoder(context=8).eval()
    piece = Continuation(tuple(range(1, 12)), (3, 4, 5))
    kept = Continuation(piece.context[-6:], piece.tokens)  # 6 + 3 − 1 = 8 tokens are read
    assert score_continuations(model, [piece])[0] == pytest.approx(one_by_one(model, kept), abs=1e-5)
    with pytest.raises(UserError, match=r"item 1 is longer .*at most 8 tokens, got 9"):
        score_continuations(model, [kept, Continuation((1,), tuple(range(9)))])


@pytest.mark.parametrize("empty", [Continuation((), (1,)), Continuation((1,), ())])
def test_continuation_refuses_empty_parts(empty):
    with pytest.raises(UserError, match="item 0 has an empty"):
        score_continuations(Bigram(V), [empty])


def test_continuation_scores_of_nothing_are_nothing():
    assert score_continuations(Bigram(V), []).shape == (0,)


@pytest.mark.parametrize("name", list(MODELS))
def test_target_log_probs_match_gathering_from_all_logits(name, monkeypatch):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 7 * V)  # several parts
    model = MODELS[name]().eval()
    tokens, targets = torch.randint(0, V, (3, 20)), torch.randint(0, V, (3, 20))
    targets[:, ::3] = IGNORE
    positions = torch.cat([torch.arange(12), torch.arange(5), torch.full((3,), -1)]).expand(3, -1)
    targets[positions < 0] = IGNORE
    with torch.no_grad():
        got = target_log_probs(model, Batch(tokens, targets, positions))
        logs = model(tokens, positions=positions).log_softmax(-1)
    expected = logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(got, torch.where(targets == IGNORE, 0.0, expected))
    with torch.no_grad():
        nothing = target_log_probs(model, Batch(tokens, torch.full_like(targets, IGNORE), positions))
    assert torch.equal(nothing, torch.zeros(3, 20))
