"""Ablation beside models whose weights are changed by hand, and sweeps beside single ablations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_recall import recall_model, recall_prompts
from torch import nn
from traced import IDS, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.ablation import AblatedHead, AblatedUnit, MaskedEdge, MaskedKey, ablate, ablated_logits
from underhood.inspect.ablation_grid import head_grid, unit_effects
from underhood.inspect.target import Target
from underhood.inspect.trace import trace
from underhood.nn.attention import Attention

TARGET = Target(token=40, against=7)
FAMILIES = ["gpt2", "llama2", "mistral", "qwen3", "gemma2"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened("mistral", tmp_path_factory.mktemp("mistral"))[0]


UNKNOWN_MODE: Any = "max"


def down_projection(model: Any) -> nn.Linear:
    """Of the first layer: its columns are the hidden units."""
    down = model.blocks[0].feedforward.down
    assert isinstance(down, nn.Linear)
    return down


def attention(model: Any, layer: int) -> Attention:
    mixer = model.blocks[layer].mixer
    assert isinstance(mixer, Attention)
    return mixer


def after(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([IDS]))[0, -1]


def test_a_head_at_zero_is_a_head_whose_output_weights_are_zero(loaded: LoadedModel):
    result = ablate(loaded, IDS, AblatedHead(1, 2), [40, 7])
    edited = copy.deepcopy(loaded.decoder)
    mixer = attention(edited, 1)
    mixer.output.weight.data[:, 2 * mixer.head_dim : 3 * mixer.head_dim] = 0
    intact_V, edited_V = after(loaded.decoder), after(edited)
    assert torch.allclose(result.logits, torch.stack([intact_V, edited_V])[:, [40, 7]], atol=1e-5)
    expected = edited_V.log_softmax(dim=-1) - intact_V.log_softmax(dim=-1)
    assert torch.allclose(result.logprob_changes, expected[[40, 7]], atol=1e-5)
    assert float(result.logit_changes.abs().max()) > 1e-4


def test_a_unit_at_zero_is_a_unit_whose_output_weights_are_zero(loaded: LoadedModel):
    result = ablate(loaded, IDS, AblatedUnit(0, 5), [40])
    edited = copy.deepcopy(loaded.decoder)
    down_projection(edited).weight.data[:, 5] = 0
    assert float(result.logits[1]) == pytest.approx(float(after(edited)[40]), abs=1e-5)
    assert float(result.logit_changes.abs()) > 1e-6


def test_a_mean_takes_away_what_varies(loaded: LoadedModel):
    heads = trace(loaded, IDS, ["heads.1"])["heads.1"]
    result = ablate(loaded, IDS, AblatedHead(1, 2, "mean"), [40])

    def averaged(_module: Any, inputs: Any) -> Any:
        by_head = inputs[0].unflatten(-1, (len(heads), -1)).clone()
        by_head[:, :, 2] = heads[2].mean(dim=0)
        return (by_head.flatten(-2),)

    handle = attention(loaded.decoder, 1).output.register_forward_pre_hook(averaged)
    expected = after(loaded.decoder)[40]
    handle.remove()
    assert float(result.logits[1]) == pytest.approx(float(expected), abs=1e-5)
    same = ablate(loaded, IDS[:1], AblatedHead(0, 1, "mean"), [40])
    assert float(same.logit_changes.abs()) < 1e-5  # nothing varies in a single token
    other = ablate(loaded, IDS[:1], AblatedHead(0, 1, "mean"), [40], reference=[IDS])
    assert float(other.logit_changes.abs()) > 1e-5


def test_a_masked_edge_is_attention_without_it(loaded: LoadedModel):
    last, key = len(IDS) - 1, len(IDS) - 4
    result = ablate(loaded, IDS, MaskedEdge(1, 2, last, key), [40])
    recorded = trace(loaded, IDS, ["query", "key", "value", "heads", "residual"])
    weights_T = recorded.pattern(1, [2])[0, last].clone()
    weights_T[key] = 0
    weights_T = weights_T / weights_T.sum()
    values_GTK = recorded["value.1"]
    read_K = weights_T @ values_GTK[2 // (4 // len(values_GTK))]

    def rewritten(_module: Any, inputs: Any) -> Any:
        by_head = inputs[0].unflatten(-1, (4, -1)).clone()
        by_head[0, -1, 2] = read_K
        return (by_head.flatten(-2),)

    handle = attention(loaded.decoder, 1).output.register_forward_pre_hook(rewritten)
    expected = after(loaded.decoder)[40]
    handle.remove()
    assert float(result.logits[1]) == pytest.approx(float(expected), abs=1e-4)
    assert float(result.logit_changes.abs()) > 1e-6


def test_a_masked_key_is_attention_without_it_in_every_later_row(loaded: LoadedModel):
    layer, head, key = 0, 1, 3
    result = ablated_logits(loaded, IDS, MaskedKey(layer, head, key))
    recorded = trace(loaded, IDS, ["query", "key", "value", "residual"])
    weights_TT = recorded.pattern(layer, [head])[0].clone()
    weights_TT[key + 1 :, key] = 0
    weights_TT = weights_TT / weights_TT.sum(dim=-1, keepdim=True)
    values_GTK = recorded[f"value.{layer}"]
    read_TK = weights_TT @ values_GTK[head // (4 // len(values_GTK))]

    def rewritten(_module: Any, inputs: Any) -> Any:
        by_head = inputs[0].unflatten(-1, (4, -1)).clone()
        by_head[0, :, head] = read_TK
        return (by_head.flatten(-2),)

    handle = attention(loaded.decoder, layer).output.register_forward_pre_hook(rewritten)
    expected_V = after(loaded.decoder)
    handle.remove()
    assert torch.allclose(result[1], expected_V, atol=1e-4)
    assert torch.allclose(result[0], after(loaded.decoder), atol=1e-5)
    assert float((result[1] - result[0]).abs().max()) > 1e-4


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_a_grid_is_single_ablations(mode: Any, loaded: LoadedModel):
    grid = head_grid(loaded, IDS, TARGET, mode=mode)
    assert grid.changes.shape == (len(loaded.decoder.blocks), 4)
    for layer in range(len(grid.changes)):
        for head in range(4):
            alone = ablate(loaded, IDS, AblatedHead(layer, head, mode), [40, 7]).logit_changes
            assert float(grid.changes[layer, head]) == pytest.approx(float(alone[0] - alone[1]), abs=1e-5)


def test_a_grid_of_experts_and_of_an_earlier_position(tmp_path: Path):
    mixtral = opened("mixtral", tmp_path / "mixtral")[0]
    early = head_grid(mixtral, IDS, Target(token=40, against=7, position=5))
    cut = head_grid(mixtral, IDS[:6], TARGET)
    assert torch.allclose(early.changes, cut.changes, atol=1e-6)
    assert float(early.changes.abs().min()) > 0


def test_unit_effects_are_single_ablations_and_the_largest(loaded: LoadedModel):
    effects = unit_effects(loaded, IDS, TARGET, count=3)
    changes = []
    width = down_projection(loaded.decoder).in_features
    for layer in range(len(loaded.decoder.blocks)):
        for unit in range(width):
            alone = ablate(loaded, IDS, AblatedUnit(layer, unit), [40, 7]).logit_changes
            changes.append(float(alone[0] - alone[1]))
    exact = torch.tensor(changes)
    for layer, unit, change in zip(effects.layers, effects.units, effects.changes.tolist(), strict=True):
        assert change == pytest.approx(changes[layer * width + unit], abs=1e-5)
    assert torch.allclose(effects.changes.abs(), exact.abs().topk(3).values, atol=1e-5)


def test_means_over_other_prompts_are_those_of_a_single_ablation(loaded: LoadedModel):
    reference = [IDS[::-1], [5, 9, 30]]
    grid = head_grid(loaded, IDS, TARGET, mode="mean", reference=reference)
    head = ablate(loaded, IDS, AblatedHead(1, 2, "mean"), [40, 7], reference=reference).logit_changes
    assert float(grid.changes[1, 2]) == pytest.approx(float(head[0] - head[1]), abs=1e-5)
    assert not torch.allclose(grid.changes, head_grid(loaded, IDS, TARGET, mode="mean").changes, atol=1e-4)
    [layer], [unit], [change] = (
        getattr(unit_effects(loaded, IDS, TARGET, count=1, mode="mean", reference=reference), name)
        for name in ("layers", "units", "changes")
    )
    alone = ablate(loaded, IDS, AblatedUnit(layer, unit, "mean"), [40, 7], reference=reference).logit_changes
    assert float(change) == pytest.approx(float(alone[0] - alone[1]), abs=1e-5)


def test_the_copying_head_is_what_the_answer_needs(tmp_path: Path):
    for copies in (True, False):
        loaded = recall_model(tmp_path, copies=copies)
        changes = []
        for ids, _, value, other in recall_prompts(10):
            grid = head_grid(loaded, ids, Target(token=value, against=other))
            changes.append(float(grid.changes[0, 0]) / max(abs(grid.score), 0.1))
        mean = sum(changes) / len(changes)
        assert (mean < -0.8) == copies, (copies, mean)


def test_masking_the_cause_s_edge_breaks_recall_and_another_does_not(tmp_path: Path):
    loaded = recall_model(tmp_path)
    for ids, cause, value, other in recall_prompts(10):
        last = len(ids) - 1
        without, filler = (
            ablate(loaded, ids, MaskedEdge(0, 0, last, key), [value, other]).logits[1]
            for key in (cause, (cause + 1) % last)
        )
        assert float(filler[0] - filler[1]) > 5
        assert float(without[0] - without[1]) < 0.3 * float(filler[0] - filler[1])
        hidden = ablate(loaded, ids, MaskedKey(0, 0, cause), [value, other]).logits[1]
        assert float(hidden[0] - hidden[1]) < 0.3 * float(filler[0] - filler[1])


def test_ablations_leave_no_hook(mistral: LoadedModel):
    before = after(mistral.decoder)
    ablate(mistral, IDS, [AblatedHead(0, 1), AblatedUnit(1, 2, "mean"), MaskedEdge(0, 0, 5, 2)], [40])
    head_grid(mistral, IDS, TARGET, mode="mean")
    assert torch.equal(after(mistral.decoder), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in mistral.decoder.modules())


@pytest.mark.parametrize(
    ("ablated", "message"),
    [
        (AblatedHead(2, 0), r"layer 2 has no attention heads; expected one of \[0, 1\]"),
        (AblatedHead(0, 4), "no head 4"),
        (AblatedHead(0, 0, UNKNOWN_MODE), "no ablation 'max'"),
        (AblatedUnit(0, 48), "no unit 48"),
        (MaskedEdge(0, 0, 2, 5), "does not see token 5"),
        (MaskedEdge(0, 0, 11, 0), "fewer than 8 away"),
        (MaskedEdge(0, 0, 0, 0), "sees only itself"),
        (MaskedKey(0, 0, len(IDS) - 1), "no later token sees"),
        (MaskedKey(0, 9, 1), "no head 9"),
    ],
)
def test_mistakes_are_explained(ablated: Any, message: str, mistral: LoadedModel):
    with pytest.raises(UserError, match=message):
        ablate(mistral, IDS, ablated, [40])


def test_results_describe_themselves(mistral: LoadedModel):
    results = (
        ablate(mistral, IDS, AblatedHead(0, 1), [40]),
        head_grid(mistral, IDS, TARGET),
        unit_effects(mistral, IDS, TARGET, count=2),
    )
    for each in results:
        assert "ablation" in repr(each)
        assert "underhood" in each._repr_html_()
