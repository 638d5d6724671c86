"""Traces beside transformers' hidden states and attentions, for every shape of decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hf_peers import relative
from traced import IDS, opened, tokens

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.checks import self_checks
from underhood.inspect.sites import KINDS, sites_of
from underhood.inspect.trace import load_trace, trace

FAMILIES = ["gpt2", "llama2", "mistral", "mixtral", "qwen3", "gemma2"]
Both = tuple[LoadedModel, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return opened(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened("llama2", tmp_path_factory.mktemp("llama"))[0]


def test_residual_streams_are_transformers_hidden_states(both: Both):
    loaded, peer = both
    recorded = trace(loaded, IDS)
    peer.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = peer(tokens(), output_hidden_states=True, use_cache=False).hidden_states
    ours = recorded.layers("residual")
    for layer, hidden_1TD in enumerate(theirs[:-1]):
        assert relative(ours[layer], hidden_1TD[0]) < 1e-4
    normed = loaded.decoder.norm(ours[-1])  # theirs has the norm in its last one
    assert relative(normed, theirs[-1][0]) < 1e-4
    assert relative(ours[1], theirs[0][0]) > 1e-3  # the ablation: another layer's is another


def test_patterns_are_transformers_attentions(both: Both):
    loaded, peer = both
    recorded = trace(loaded, IDS, ["query", "key"])
    peer.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = peer(tokens(), output_attentions=True, use_cache=False).attentions
    for layer, weights_1HTT in enumerate(theirs):
        assert torch.allclose(recorded.pattern(layer), weights_1HTT[0], atol=1e-4)
    assert torch.equal(recorded.pattern(1, [2])[0], recorded.pattern(1)[2])


def test_what_is_added_makes_the_stream(both: Both):
    loaded, _ = both
    recorded = trace(loaded, IDS, ["residual", "middle", "mixer", "feedforward"])
    for layer in range(2):
        start, middle, end = (
            recorded[site] for site in (f"residual.{layer}", f"middle.{layer}", f"residual.{layer + 1}")
        )
        assert torch.allclose(start + recorded[f"mixer.{layer}"], middle, atol=1e-5)
        assert torch.allclose(middle + recorded[f"feedforward.{layer}"], end, atol=1e-5)


def test_self_checks_hold(both: Both):
    loaded, _ = both
    checks = self_checks(loaded, trace(loaded, IDS))
    assert len(checks) == 3
    assert all(check.holds for check in checks), checks


def test_self_checks_notice_another_end(llama: LoadedModel):
    recorded = trace(llama, IDS)
    handle = llama.decoder.unembed.register_forward_hook(lambda _m, _i, output: output * (1 + 0.01 * output.shape[1]))
    try:
        first = self_checks(llama, recorded)[0]
    finally:
        handle.remove()
    assert not first.holds  # (T, V) and (1, T, V) are scaled differently: as if a part between them had been left out


def test_experts_scores_are_recorded(tmp_path: Path):
    loaded, _ = opened("mixtral", tmp_path / "mixtral")
    assert trace(loaded, IDS, ["router"])["router.1"].shape == (len(IDS), 4)


def test_a_recording_changes_nothing_and_leaves_no_hook(llama: LoadedModel):
    before = llama.decoder(tokens())
    trace(llama, IDS, list(KINDS.keys() - {"router"}))
    assert torch.equal(llama.decoder(tokens()), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.decoder.modules())


def test_a_trace_is_opened_elsewhere_as_it_was(llama: LoadedModel, tmp_path: Path):
    recorded = trace(llama, IDS, ["residual", "query", "key"])
    recorded.save(tmp_path / "here")
    again = load_trace(tmp_path / "here")
    assert (again.ids, again.pieces, again.attention) == (recorded.ids, recorded.pieces, recorded.attention)
    assert all(torch.equal(again[site], value) for site, value in recorded.values.items())
    assert torch.equal(again.pattern(0), recorded.pattern(0))
    (tmp_path / "here.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is not a trace"):
        load_trace(tmp_path / "here")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: trace(model, IDS, ["residuals"]), "did you mean residual"),
        (lambda model: trace(model, IDS, ["residual.7"]), "a layer from 0 to 1"),
        (lambda model: trace(model, []), "no token"),
        (lambda model: trace(model, IDS * 100), "at most 160"),
        (lambda model: trace(model, IDS, limit_mb=1e-6), "allow more with limit_mb"),
        (lambda model: trace(model, IDS)["query.0"], "has no query.0"),
        (lambda model: trace(model, IDS, ["query", "key"]).pattern(5), "layer 5 has no attention"),
        (lambda model: trace(model, IDS, ["query", "key"]).pattern(0, [9]), "has no head 9"),
    ],
)
def test_mistakes_are_explained(call: Any, message: str, llama: LoadedModel):
    with pytest.raises(UserError, match=message):
        call(llama)


def test_sites_come_in_the_order_of_the_pass(llama: LoadedModel):
    names = list(sites_of(llama.decoder))
    assert names[0] == "residual.0"
    assert names[-2:] == ["residual.2", "logits"]
