"""Mistakes that views of this kind have made elsewhere, each with the numbers that the mistake would give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from traced import IDS, opened, tokens

from underhood.infer.load import LoadedModel
from underhood.inspect.contributions import SITES, contributions, frozen_norm
from underhood.inspect.lens import logit_lens
from underhood.inspect.trace import trace


@pytest.fixture(scope="module", params=["gpt2", "llama2", "gemma2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


@torch.no_grad()
def test_lens_takes_the_norm_statistics_of_each_layer_s_own_stream(loaded: LoadedModel):
    recorded, model = trace(loaded, IDS), loaded.decoder
    lens = logit_lens(loaded, recorded, k=model.vocab_size)
    for layer in range(2):
        stream_TD, last_TD = recorded[f"residual.{layer}"], recorded[f"residual.{len(model.blocks)}"]
        own_TV = model.unembed(model.norm(stream_TD)).softmax(dim=-1)
        bias = getattr(model.norm, "bias", None)
        pairs = zip(stream_TD.double(), last_TD.double(), strict=True)
        frozen_TD = torch.cat([frozen_norm(model.norm, stream_D[None], last_D) for stream_D, last_D in pairs]).float()
        frozen_TV = model.unembed(frozen_TD if bias is None else frozen_TD + bias).softmax(dim=-1)
        assert torch.allclose(lens.probabilities[layer], own_TV.sort(dim=-1, descending=True).values, atol=1e-6)
        assert not torch.allclose(own_TV, frozen_TV, atol=1e-3)  # the mistake: statistics of the last stream


@torch.no_grad()
def test_parts_of_a_score_take_the_scale_of_the_last_stream(loaded: LoadedModel):
    recorded, model = trace(loaded, IDS, SITES), loaded.decoder
    parts = contributions(loaded, recorded, 40, position=5)
    last_D = recorded[f"residual.{len(model.blocks)}"][5].double()
    assert abs(parts.error) < 1e-5 * max(1.0, abs(parts.score))
    # Twice as large a part adds twice as much, as long as the scale is held; with its own scale it would add the same.
    added_D = recorded["mixer.1"][5].double()
    for factor in (1.0, 2.0):
        share = frozen_norm(model.norm, factor * added_D[None], last_D)[0] @ model.unembed.weight[40].double()
        expected = factor * float(parts.values[parts.names.index("mixer.1")])
        assert float(share) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@torch.no_grad()
def test_rmsnorm_is_not_centred_and_layernorm_is(loaded: LoadedModel):
    norm = loaded.decoder.norm
    stream_D = trace(loaded, IDS)["residual.1"][4].double()
    plain_D, lifted_D = (frozen_norm(norm, (stream_D + lift)[None], stream_D)[0] for lift in (0.0, 1.0))
    if isinstance(norm, nn.LayerNorm):
        assert torch.allclose(plain_D, lifted_D)
    else:  # centring would take something away that the model computes with
        assert not torch.allclose(plain_D, lifted_D, atol=1e-3)
    bias = getattr(norm, "bias", None)
    expected_D = norm(stream_D.float()) - (0.0 if bias is None else bias)
    assert torch.allclose(plain_D.float(), expected_D, atol=1e-4)


@torch.no_grad()
def test_lens_of_soft_capped_scores_is_of_log_probabilities_after_the_cap(tmp_path: Path):
    loaded, _ = opened("gemma2", tmp_path / "gemma2")
    model, cap = loaded.decoder, loaded.decoder.spec.logit_softcap
    assert cap is not None
    model.unembed.weight.data *= 200  # scores so large that the cap bends them
    lens = logit_lens(loaded, trace(loaded, IDS), k=model.vocab_size)
    hidden_TD = model.hidden_states(tokens())[0]
    raw_TV = hidden_TD @ model.unembed.weight.T
    assert float(raw_TV.abs().max()) > cap
    capped_TV = (cap * (raw_TV / cap).tanh()).softmax(dim=-1)
    assert torch.allclose(lens.probabilities[-1], capped_TV.sort(dim=-1, descending=True).values, atol=1e-4)
    uncapped_TV = raw_TV.softmax(dim=-1)
    assert not torch.allclose(lens.probabilities[-1], uncapped_TV.sort(dim=-1, descending=True).values, atol=1e-2)
