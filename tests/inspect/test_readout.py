"""Reading out streams a slice of the vocabulary at a time, beside all scores at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from underhood.inspect import readout
from underhood.inspect.readout import read_top, top_scores
from underhood.models.decoder import Decoder, qwen3_shaped


def ending(vocabulary: int, *, cap: float | None = None, tokens: int | None = None) -> Decoder:
    """A decoder, of which only the final norm and the unembedding are used."""
    spec = qwen3_shaped(vocab_size=vocabulary, context_length=16, d_model=8, layers=1, heads=1, tied=False)
    model = replace(spec, logit_softcap=cap).initialize(seed=0)
    model.unembed.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    model.token_count = tokens
    return model


@pytest.mark.parametrize("cap", [None, 7.0])
@pytest.mark.parametrize(("vocabulary", "tokens"), [(50, None), (1000, 777), (2500, None)])
def test_the_same_as_from_all_scores(monkeypatch: pytest.MonkeyPatch, vocabulary: int, tokens: int | None, cap: float):
    monkeypatch.setattr(readout, "SLICE", 300)
    model = ending(vocabulary, cap=cap, tokens=tokens)
    stream_ND = torch.randn(7, 8, generator=torch.Generator().manual_seed(0)) * 5
    with torch.no_grad():
        logprobs_NV = model.unembed(model.norm(stream_ND))[:, :tokens].log_softmax(dim=-1)
    followed_N = logprobs_NV.topk(9, dim=1).indices[:, 8]
    read = read_top(model, stream_ND, 4, followed=followed_N)
    expected = logprobs_NV.topk(4, dim=1)
    assert torch.equal(read.ids, expected.indices)
    torch.testing.assert_close(read.logprobs, expected.values)
    torch.testing.assert_close(read.entropy, -(logprobs_NV.exp() * logprobs_NV).sum(dim=1))
    assert read.ranks is not None
    assert read.ranks.tolist() == [9] * 7


def test_an_unembedding_that_cannot_be_cut_is_read_in_groups_of_streams(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readout, "STREAMS", 3)
    model = ending(100)
    stream_ND = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    followed_N = torch.arange(7)
    cut = read_top(model, stream_ND, 4, followed=followed_N)
    whole = model.unembed
    model.unembed = nn.Sequential(whole)  # pyright: ignore[reportAttributeAccessIssue]
    # It gives the same scores, but has no weight of its own
    uncut = read_top(model, stream_ND, 4, followed=followed_N)
    assert torch.equal(cut.ids, uncut.ids)
    assert cut.ranks is not None
    assert uncut.ranks is not None
    assert torch.equal(cut.ranks, uncut.ranks)
    torch.testing.assert_close(cut.entropy, uncut.entropy)


@pytest.mark.parametrize("size", [40, 64, 640, 777])
@pytest.mark.parametrize("k", [1, 5, 12])
def test_top_scores_are_torch_topk(size: int, k: int):
    scores_NV = torch.randn(6, size, generator=torch.Generator().manual_seed(size))
    values, ids = top_scores(scores_NV, k)
    expected = scores_NV.topk(k, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids, expected.indices)
