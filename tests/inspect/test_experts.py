"""Expert usage beside transformers' router scores and exact counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from traced import IDS, opened, tokens

from underhood.core.errors import UserError
from underhood.inspect.experts import ExpertUsage, expert_usage, expert_usage_over
from underhood.inspect.trace import trace


@pytest.mark.parametrize(("family", "layers"), [("mixtral", (0, 1)), ("qwen2_moe", (0, 2)), ("qwen3_moe", (0, 2))])
def test_choices_are_those_of_transformers_routers(family: str, layers: tuple[int, ...], tmp_path: Path):
    loaded, peer = opened(family, tmp_path)
    usage = expert_usage(loaded, trace(loaded, IDS, ["router"]))
    assert usage.layers == layers
    with torch.no_grad():
        scores = [
            each
            for each in peer(tokens(), output_router_logits=True, use_cache=False).router_logits
            if each is not None
        ]
    for row, score_TE in enumerate(scores):
        top = score_TE.softmax(dim=-1).topk(usage.chosen.shape[-1], dim=-1)
        assert torch.equal(usage.chosen[row], top.indices)
        weights = top.values if family != "mixtral" else top.values / top.values.sum(dim=-1, keepdim=True)
        if family != "qwen2_moe":
            assert torch.allclose(usage.weights[row], weights, atol=1e-5)
        expected = [sum(expert in row for row in top.indices.tolist()) for expert in range(usage.experts)]
        assert torch.allclose(usage.load[row] * top.indices.numel(), torch.tensor(expected).float())


def usage_of(chosen: list[list[int]], experts: int = 4) -> ExpertUsage:
    chosen_MNA = torch.tensor([chosen])
    ids = tuple(range(len(chosen)))
    return ExpertUsage(ids, (0,), chosen_MNA, torch.ones(chosen_MNA.shape) / chosen_MNA.shape[-1], experts)


def test_balance_of_known_loads():
    even = usage_of([[0, 1], [2, 3]])
    assert even.effective[0] == pytest.approx(4)
    assert even.imbalance[0] == pytest.approx(1)
    collapsed = usage_of([[2], [2], [2]])
    assert collapsed.effective[0] == pytest.approx(1)
    assert collapsed.imbalance[0] == pytest.approx(4)
    half = usage_of([[0], [1], [1], [0]])
    assert half.effective[0] == pytest.approx(2)
    assert half.load[0].tolist() == [0.5, 0.5, 0, 0]
    assert half.top_tokens(0, 1) == [(1, 1), (2, 1)]
    with pytest.raises(UserError, match="layer 5 has no experts"):
        half.top_tokens(5, 0)


def test_over_texts_it_is_the_sum_of_the_windows(tmp_path: Path):
    loaded, _ = opened("mixtral", tmp_path)
    text = "".join(chr(0x100 + id) for id in IDS)
    over = expert_usage_over(loaded, [text, text[:6]], window=20)
    ids = loaded.prompt_ids(text)
    single = expert_usage(loaded, trace(loaded, ids, ["router"]))
    assert torch.equal(over.chosen[:, : len(ids)], single.chosen)
    assert len(over.ids) == len(ids) + len(loaded.prompt_ids(text[:6]))


def test_models_without_experts_are_refused(tmp_path: Path):
    loaded, _ = opened("llama2", tmp_path)
    with pytest.raises(UserError, match="has no experts"):
        expert_usage(loaded, trace(loaded, IDS))
