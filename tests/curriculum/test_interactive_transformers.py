"""Figures of rotary positions, the KV cache and experts on their pages: they show what the library computes."""

from __future__ import annotations

import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import mixture
from underhood.models.presets import count_parameters, preset
from underhood.nn.forward_context import ForwardContext
from underhood.nn.moe import Choice
from underhood.nn.rope import RotarySpec, rotate

RANDOM_GUESS = 6.93
"""Nats per token of a guess among 1,024."""


def test_mixture_has_learnt_and_its_probabilities_sum_to_one():
    data = mixture()
    assert data["loss"] < 0.7 * RANDOM_GUESS
    for text in data["texts"]:
        router_LTE = torch.tensor(text["router"])
        assert router_LTE.shape == (2, len(text["pieces"]), 8)
        torch.testing.assert_close(router_LTE.sum(dim=-1), torch.ones(router_LTE.shape[:2]), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("head", "asks", "looked"), [(0, 12, 3), (1, 7, 7), (3, 15, 14)])
def test_turned_arrows_give_the_scores_of_the_model(figure: Opener, head: int, asks: int, looked: int):
    data = mixture()["rotary"]
    actual = figure("p2021_rope").set(head=str(head + 1), asks=asks, looked=looked)
    assert actual["score"] == pytest.approx(data["scores"][head][asks][looked], abs=0.02)
    q_1K, k_1K = torch.tensor([data["query"][head][asks]]), torch.tensor([data["key"][head // 2][looked]])
    assert actual["unturned"] == pytest.approx(float((q_1K * k_1K).sum() / 4))
    before = actual["score"]
    assert actual.set(shift=150)["score"] == pytest.approx(before, abs=1e-9)
    assert actual.raw("positions") == str(asks + 150)
    positions_BT = torch.tensor([[asks + 150 + 37, looked + 150]])
    ctx = ForwardContext(positions_BT, positions_BT, None)
    both_BHTK = torch.cat([q_1K, k_1K])[None, None].double()
    q_K, k_K = rotate(both_BHTK, RotarySpec().tables(ctx, 16, torch.float64))[0, 0]
    assert actual.set(apart=37)["score"] == pytest.approx(float(q_K @ k_K) / 4, abs=1e-6)
    assert actual["distance"] == asks + 37 - looked


@pytest.mark.parametrize(
    ("kind", "fresh", "read", "kept"),
    [("keep all keys and values", 1, 15, 16), ("keep the last 8", 1, 7, 8), ("keep nothing", 16, 0, 0)],
)
def test_passes_count_what_they_compute_and_read(figure: Opener, kind: str, fresh: int, read: int, kept: int):
    prompt = mixture()["written"]["prompt"]
    actual = figure("p2022_kv_cache").set(kind=kind, tokens=15)
    actual.press("Write the next token")
    assert (actual["fresh"], actual["read"], actual["kept"]) == (fresh, read, kept)
    again = sum(range(prompt, 17))
    assert actual["total"] == (again if kind == "keep nothing" else 16)


@pytest.mark.parametrize(
    ("model", "name", "power", "texts"),
    [
        ("Llama-2 7B", "llama-2-7b", 5, 0),
        ("Llama-2 70B", "llama-2-70b", 3, 4),
        ("Mistral 7B", "mistral-7b-v0.1", 8, 1),
        ("Llama 3 8B", "llama-3-8b", 10, 2),
    ],
)
def test_cache_of_a_large_model_has_the_size_that_its_layers_declare(figure: Opener, model, name, power: int, texts):
    actual = figure("p2022_kv_cache").set(model=model, context=power, texts=texts)
    spec, length = preset(name), 128 * 2**power
    heads, width = spec.state_specs[0].vectors[0]
    per_token = len(spec.state_specs) * 2 * heads * width * 2
    assert actual["token"] == per_token
    window = spec.state_specs[0].window or length
    total = per_token * min(length, window) * 2**texts
    assert actual["bytes"] == total
    assert actual["share"] == pytest.approx(total / (2 * count_parameters(spec)[0]), rel=0.002)
    assert actual.set(sharing="one for all")["token"] == per_token / heads


@pytest.mark.parametrize(("layer", "at", "active"), [(1, 5, 2), (2, 9, 2), (2, 3, 1), (1, 12, 4)])
def test_experts_are_those_that_the_library_chooses(figure: Opener, layer: int, at: int, active: int):
    data = mixture()
    rows_TE = torch.tensor(data["texts"][0]["router"][layer - 1])
    weights_TA, chosen_TA = Choice(active, normalise=True)(rows_TE.clamp(min=1e-9).log())
    actual = figure("p2024_mixtral").set(layer=str(layer), at=at, active=active)
    assert actual["first"] == int(chosen_TA[at - 1, 0]) + 1
    assert actual["weight"] == pytest.approx(float(weights_TA[at - 1, 0]), abs=1e-4)
    assert actual["second"] == (int(chosen_TA[at - 1, 1]) + 1 if active > 1 else 0)
    load_E = chosen_TA.flatten().bincount(minlength=8) / chosen_TA.numel()
    assert actual["busiest"] == pytest.approx(float(load_E.max()) * 8, rel=1e-5)
    assert actual["idle"] == pytest.approx(1 - active / 8)
