"""Muon against PyTorch's and closed forms, and optimisers as `torch.optim.Optimizer`s: groups, state, one for all."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_training import counting_batch, small_model
from torch import Tensor, nn
from torch.optim import Optimizer

from underhood.core.errors import UserError
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.loss import next_token_loss
from underhood.train.optim import (
    QUINTIC,
    AdamWSpec,
    Muon,
    MuonAdamWSpec,
    load_optimizer_tensors,
    optimizer_tensors,
    orthogonalize,
    scale_lr,
)


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((4, 6), (6, 3), (5,))]


def gradients(own: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step + 100)
    for p in own:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10 ** (step % 5 - 2)


def quintic(s: Tensor, steps: int) -> Tensor:
    a, b, c = QUINTIC
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (3, 6, 8), (2, 2, 8, 3)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalize_applies_the_polynomial_to_the_singular_values_matches_svd(shape: tuple[int, ...], steps: int):
    g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    scaled = s / g.norm(dim=(-2, -1)).unsqueeze(-1)
    expected = u @ torch.diag_embed(quintic(scaled, steps)) @ vt
    torch.testing.assert_close(orthogonalize(g, steps), expected, rtol=1e-9, atol=1e-9)


def spectrum(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix.double())


def skewed(rows: int, columns: int) -> Tensor:
    """A gradient-like matrix: its singular values span a factor of 30."""
    generator = torch.Generator().manual_seed(rows)
    u, _, vt = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    return u @ torch.diag(torch.logspace(0, -1.5, min(rows, columns))) @ vt


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16)])
def test_orthogonalize_brings_singular_values_near_one_whatever_the_scale(shape: tuple[int, int]):
    for scale in (1e-6, 1.0, 1e6):
        values = spectrum(orthogonalize(skewed(*shape) * scale))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_orthogonalize_of_zero_is_zero():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def muon_update(gradient: Tensor) -> Tensor:
    p = nn.Parameter(torch.zeros_like(gradient))
    p.grad = gradient.clone()
    Muon([p], lr=1.0).step()
    return p.detach()


def test_muon_update_has_a_flat_spectrum_and_momentum_alone_has_not():
    flat = spectrum(muon_update(skewed(16, 16)))
    assert flat.max() / flat.min() < 2.1
    raw = spectrum(skewed(16, 16))  # what the first update of plain momentum would be, but for a factor
    assert raw.max() / raw.min() > 25


def test_muon_scales_tall_matrices_by_the_root_of_their_aspect():
    torch.testing.assert_close(muon_update(skewed(48, 12)).norm(), muon_update(skewed(48, 12).mT).norm() * 2)


@pytest.mark.parametrize("shape", [(16, 48), (48, 12)])
def test_muon_updates_each_matrix_of_a_stack_as_if_it_were_alone(shape: tuple[int, int]):
    matrices = [skewed(*shape), 100 * skewed(*shape).flip(0)]
    together = muon_update(torch.stack(matrices))
    for matrix, update in zip(matrices, together, strict=True):
        torch.testing.assert_close(update, muon_update(matrix), rtol=1e-4, atol=1e-5)


def test_muon_30_steps_match_torch():
    """PyTorch iterates in bf16, so the updates agree to bf16's three digits."""
    make = lambda: [nn.Parameter(skewed(8, 12)), nn.Parameter(skewed(12, 8)), nn.Parameter(skewed(8, 12))]  # noqa: E731
    ours, theirs = make(), make()
    optimizer = Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.1)
    oracle = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True, adjust_lr_fn="original", eps=1e-7
    )
    for step in range(30):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        oracle.step()
    for p, q, start in zip(ours, theirs, make(), strict=True):
        assert (p - q).norm() < 0.02 * (q - start).norm()


def test_muon_stacks_matrices_of_one_shape_without_mixing_them():
    own = [nn.Parameter(skewed(6, 9)) for _ in range(3)]
    gradients(own, 0)
    alone = [muon_update(p.grad) for p in own if p.grad is not None]
    for p in own:
        p.data.zero_()
    Muon(own, lr=1.0).step()
    for p, single in zip(own, alone, strict=True):
        torch.testing.assert_close(p.detach(), single)


def test_muon_spec_gives_every_parameter_to_exactly_one_rule():
    model = small_model()
    names = {name for name, _ in model.named_parameters()}
    optimizer = MuonAdamWSpec().build(model)
    next_token_loss(model, counting_batch(0)).backward()
    optimizer.step()
    held = [key.rsplit(".", 1) for key in optimizer_tensors(model, optimizer)]
    assert {name for name, _ in held} == names
    muon = {name for name, key in held if key == "momentum_buffer"}
    assert muon == {name for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")}
    assert not muon & {name for name, key in held if key == "exp_avg"}
    with pytest.raises(ValueError, match="empty parameter list"):
        MuonAdamWSpec().build(small_model().requires_grad_(False))


def test_muon_spec_takes_a_tied_embedding_once():
    spec = qwen3_shaped(vocab_size=8, context_length=4, d_model=8, layers=1, heads=2, tied=True)
    model = Decoder(spec)
    groups = MuonAdamWSpec().build(model).param_groups
    assert sum(p is model.embed.weight for group in groups for p in group["params"]) == 1


def test_adamw_spec_decays_matrices_only():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    AdamWSpec(lr=0.1, weight_decay=0.5).build(model).step()
    for p, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (0.95 if p.ndim == 2 else 1.0))


def trained(build: Callable[[Decoder], Optimizer], steps: int, reload_at: int | None = None) -> list[Tensor]:
    model = small_model()
    optimizer = build(model)
    for step in range(steps):
        if step == reload_at:
            saved = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
            optimizer = build(model)
            load_optimizer_tensors(model, optimizer, saved)
        next_token_loss(model, counting_batch(step)).backward()
        optimizer.step()
        model.zero_grad()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("build", [MuonAdamWSpec().build, AdamWSpec().build], ids=["muon", "adamw"])
def test_optimizer_state_saved_and_loaded_goes_on_bit_for_bit(build: Callable[[Decoder], Optimizer]):
    for whole, again in zip(trained(build, 6), trained(build, 6, reload_at=3), strict=True):
        assert torch.equal(whole, again)


def test_optimizer_refuses_another_models_state():
    whole, other = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    optimizer = AdamWSpec().build(whole)
    whole(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match="does not belong to this run; got a difference at 'bias'"):
        load_optimizer_tensors(other, AdamWSpec().build(other), optimizer_tensors(whole, optimizer))


def test_combined_optimizer_state_dict_round_trip_goes_on_bit_for_bit():
    def trained_with(reload: bool) -> list[Tensor]:
        model = small_model()
        optimizer = MuonAdamWSpec().build(model)
        for step in range(6):
            if reload and step == 3:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = MuonAdamWSpec().build(model)
                optimizer.load_state_dict(saved)
            next_token_loss(model, counting_batch(step)).backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    for whole, again in zip(trained_with(False), trained_with(True), strict=True):
        assert torch.equal(whole, again)


def test_scheduler_of_torch_and_scale_lr_reach_every_group():
    optimizer = MuonAdamWSpec(matrix_lr=0.2, lr=0.1, unembed_lr=0.05).build(small_model())
    assert isinstance(optimizer, Optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 0.05, 0.025}
    scale_lr(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.01, 0.005])
    assert optimizer.optimizers[0].param_groups[0] is optimizer.param_groups[0]  # type: ignore[attr-defined]


def test_muon_reaches_a_lower_loss_than_adamw_on_the_same_steps():
    def loss_after(build: Callable[[Decoder], Optimizer]) -> float:
        model = small_model()
        optimizer = build(model)
        for step in range(60):
            next_token_loss(model, counting_batch(step)).backward()
            scale_lr(optimizer, 1 - step / 60)
            optimizer.step()
            model.zero_grad()
        with torch.no_grad():
            return sum(float(next_token_loss(model, counting_batch(step))) for step in range(1000, 1010)) / 10

    best_adamw = min(loss_after(AdamWSpec(lr=lr, weight_decay=0.0).build) for lr in (3e-3, 1e-2, 3e-2))
    best_muon = min(loss_after(MuonAdamWSpec(lr=lr, matrix_lr=0.05).build) for lr in (1e-2, 3e-2))
    assert best_muon < best_adamw
