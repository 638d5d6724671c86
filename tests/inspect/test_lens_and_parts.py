"""The logit lens, the parts of a score and patching, beside closed forms and passes with hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from traced import IDS, opened, tokens

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.contributions import SITES, contributions, frozen_norm
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
from underhood.inspect.trace import trace

OTHER = [*IDS[:3], 77, *IDS[4:]]


@pytest.fixture(scope="module", params=["gpt2", "llama2", "gemma2", "mistral"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


def test_the_last_row_of_the_lens_is_the_model(loaded: LoadedModel):
    lens = logit_lens(loaded, trace(loaded, IDS), k=3)
    with torch.no_grad():
        shares_TV = loaded.decoder(tokens())[0].softmax(dim=-1)
    top = shares_TV.topk(3, dim=-1)
    assert torch.equal(lens.ids[-1], top.indices)
    assert torch.allclose(lens.probabilities[-1], top.values, atol=1e-5)
    assert lens.ranks[-1].tolist() == [1] * len(IDS)
    entropy_T = -(shares_TV * shares_TV.log2()).sum(dim=-1)
    assert torch.allclose(lens.entropy[-1], entropy_T, atol=1e-4)


def test_a_row_is_that_layer_s_stream_with_its_own_norm(loaded: LoadedModel):
    recorded = trace(loaded, IDS)
    lens = logit_lens(loaded, recorded, positions=[-2], k=1)
    model = loaded.decoder
    with torch.no_grad():
        expected = model.unembed(model.norm(recorded["residual.1"][-2])).argmax()
    assert lens.ids[1, 0, 0] == expected
    assert lens.positions == (len(IDS) - 2,)


def test_the_parts_add_up_to_the_score(loaded: LoadedModel):
    recorded = trace(loaded, IDS, [*SITES, "logits"])
    parts = contributions(loaded, recorded, 40)
    assert abs(parts.error) < 1e-5 * max(1.0, abs(parts.score))
    cap = loaded.decoder.spec.logit_softcap
    shown = parts.score if cap is None else cap * torch.tensor(parts.score / cap).tanh().item()
    assert shown == pytest.approx(float(recorded["logits"][-1, 40]), abs=1e-4)
    difference = contributions(loaded, recorded, 40, against=7)
    alone = contributions(loaded, recorded, 7)
    assert difference.score == pytest.approx(parts.score - alone.score, abs=1e-5)


def test_with_each_part_s_own_scale_they_do_not(loaded: LoadedModel):
    recorded = trace(loaded, IDS, SITES)
    model = loaded.decoder
    parts = contributions(loaded, recorded, 40)
    added = [recorded["residual.0"][-1]]
    added += [
        recorded[f"{kind}.{layer}"][-1] for layer in range(len(model.blocks)) for kind in ("mixer", "feedforward")
    ]
    direction_D = model.unembed.weight[40].detach().double()
    own = sum(float(frozen_norm(model.norm, each.double()[None], each.double())[0] @ direction_D) for each in added)
    assert abs(own + parts.constant - parts.score) > 0.01 * abs(parts.score)


def test_a_sweep_is_what_passes_with_hooks_give(loaded: LoadedModel):
    sweep = patch_residual(loaded, OTHER, IDS, answer=40, other=7)
    model, clean = loaded.decoder, trace(loaded, OTHER)
    layers = len(model.blocks)
    for layer, token in [(0, 3), (1, 3), (1, 11), (layers, 11)]:
        module = model.blocks[layer] if layer < layers else model.norm

        def patched(_module: Any, inputs: Any, layer: int = layer, token: int = token) -> Any:
            stream = inputs[0].clone()
            stream[:, token] = clean[f"residual.{layer}"][token]
            return (stream, *inputs[1:])

        handle = module.register_forward_pre_hook(patched)
        with torch.no_grad():
            logits_V = model(tokens())[0, -1]
        handle.remove()
        expected = float(logits_V[40] - logits_V[7])
        assert sweep.differences[layer, token] == pytest.approx(expected, abs=1e-5)


def test_a_sweep_begins_and_ends_where_it_must(loaded: LoadedModel):
    sweep = patch_residual(loaded, OTHER, IDS, answer=40, other=7)
    # The prompts differ in one token, whose embedding is all the difference; at the end only the last token counts.
    assert sweep.differences[0, 3] == pytest.approx(sweep.source, abs=1e-4)
    assert sweep.differences[-1, -1] == pytest.approx(sweep.source, abs=1e-4)
    untouched = torch.full((len(IDS) - 1,), sweep.target)
    assert torch.allclose(sweep.differences[-1, :-1], untouched, atol=1e-4)
    same = patch_residual(loaded, IDS, IDS, answer=40, other=7)
    assert torch.allclose(same.differences, torch.full_like(same.differences, same.target), atol=1e-5)


def test_traces_are_patched_without_being_run_again(loaded: LoadedModel):
    passes = []
    handle = loaded.decoder.register_forward_hook(lambda *_: passes.append(1))
    try:
        ends = [trace(loaded, prompt) for prompt in (OTHER, IDS)]
        recorded = len(passes)
        sweep = patch_residual(loaded, *ends, answer=40, other=7)
        assert (recorded, len(passes)) == (2, 2)
        again = patch_residual(loaded, OTHER, IDS, answer=40, other=7)
        assert len(passes) == 4
    finally:
        handle.remove()
    assert torch.equal(sweep.differences, again.differences)
    assert (sweep.source, sweep.target) == (again.source, again.target)


def test_patching_the_other_way_swaps_the_ends(loaded: LoadedModel):
    there = patch_residual(loaded, OTHER, IDS, answer=40, other=7)
    back = patch_residual(loaded, IDS, OTHER, answer=40, other=7)
    assert (back.source, back.target) == (there.target, there.source)
    # The prompts differ in token 3 alone: taking it from the other prompt makes that prompt.
    assert back.differences[0, 3] == pytest.approx(there.target, abs=1e-4)
    assert there.differences[0, 3] == pytest.approx(there.source, abs=1e-4)


def test_prompts_of_different_length_are_refused(loaded: LoadedModel):
    with pytest.raises(UserError, match="equally many"):
        patch_residual(loaded, IDS[:-1], IDS, answer=1, other=2)
    with pytest.raises(UserError, match="11 and 12 tokens"):
        patch_residual(loaded, trace(loaded, IDS[:-1]), IDS, answer=1, other=2)


def test_positions_that_are_not_there_are_refused(loaded: LoadedModel, tmp_path: Path):
    with pytest.raises(UserError, match="no token 12"):
        logit_lens(loaded, trace(loaded, IDS), positions=[12])
