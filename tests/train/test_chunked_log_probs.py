"""Log-probabilities of tokens without all logits: against plain log-softmax, kept or computed again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from underhood.nn.softcap import SoftcappedLinear
from underhood.train import chunked_log_probs
from underhood.train.chunked_log_probs import unembedded_log_probs

N, D, V = 37, 8, 50


@pytest.mark.parametrize("kept", [0, 20 * V, 10 * N * V], ids=["none kept", "half kept", "all kept"])
@pytest.mark.parametrize("head", ["plain", "bias", "softcap", "frozen"])
def test_log_probs_and_gradients_match_log_softmax(monkeypatch: pytest.MonkeyPatch, kept: int, head: str):
    monkeypatch.setattr(chunked_log_probs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(chunked_log_probs, "SLICE_VALUES", 10)
    torch.manual_seed(0)
    unembed = SoftcappedLinear(D, V, 2.0) if head == "softcap" else nn.Linear(D, V, bias=head == "bias")
    unembed.double().requires_grad_(head != "frozen")
    hidden_ND = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    targets_N, weight_N = torch.randint(V, (N,)), torch.randn(N, dtype=torch.float64)
    expected_N = unembed(hidden_ND).log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
    actual_N = unembedded_log_probs(hidden_ND, unembed, targets_N, vocab_size=V, kept_values=kept)
    torch.testing.assert_close(actual_N, expected_N)
    inputs = [hidden_ND, *(p for p in unembed.parameters() if p.requires_grad)]
    gradients = [torch.autograd.grad((x * weight_N).sum(), inputs) for x in (actual_N, expected_N)]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def test_log_probs_keep_no_more_scores_than_allowed(monkeypatch: pytest.MonkeyPatch):
    """What is saved for the way back: of 37 positions the first two slices of ten."""
    monkeypatch.setattr(chunked_log_probs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(chunked_log_probs, "SLICE_VALUES", 10)
    calls: list[int] = []
    unembed = nn.Linear(D, V)
    unembed.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    hidden_ND = torch.randn(N, D, requires_grad=True)
    logp_N = unembedded_log_probs(
        hidden_ND, unembed, torch.zeros(N, dtype=torch.long), vocab_size=V, kept_values=25 * V
    )
    assert calls == [10, 10, 10, 7]
    logp_N.sum().backward()
    assert calls[4:] == [10, 7]


def test_log_probs_without_positions_or_without_gradient():
    unembed, none_N = nn.Linear(D, V), torch.zeros(0, dtype=torch.long)
    assert unembedded_log_probs(torch.zeros(0, D), unembed, none_N, vocab_size=V).shape == (0,)
    with torch.no_grad():
        logp_N = unembedded_log_probs(torch.randn(3, D), unembed, torch.tensor([1, 2, 3]), vocab_size=V)
    assert not logp_N.requires_grad
    assert bool((logp_N < 0).all())


@pytest.mark.parametrize("kept", [0, 10 * N * V])
def test_log_probs_under_autocast_are_those_of_the_rounded_scores(kept: int):
    torch.manual_seed(0)
    unembed, targets_N = nn.Linear(D, V, bias=False), torch.randint(V, (N,))
    hidden_ND = torch.randn(N, D, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        actual_N = unembedded_log_probs(hidden_ND, unembed, targets_N, vocab_size=V, kept_values=kept)
        expected_N = unembed(hidden_ND).float().log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(actual_N, expected_N)
    gradients = [torch.autograd.grad(x.sum(), [hidden_ND, unembed.weight])[1] for x in (actual_N, expected_N)]
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02)


def test_log_probs_give_the_same_gradient_in_a_second_backward_pass():
    hidden_ND = torch.randn(3, D, requires_grad=True)
    logp_N = unembedded_log_probs(hidden_ND, nn.Linear(D, V), torch.tensor([1, 2, 3]), vocab_size=V)
    first_ND, second_ND, third_ND = (torch.autograd.grad(logp_N.sum(), hidden_ND, retain_graph=True)[0] for _ in "123")
    torch.testing.assert_close(second_ND, first_ND)
    torch.testing.assert_close(third_ND, first_ND)
