"""AdamW and Muon against PyTorch's own, against closed forms, and without the idea that makes them work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_training import counting_batch, small_model
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.loss import next_token_loss
from underhood.train.optim import QUINTIC, AdamW, AdamWSpec, Muon, MuonAdamWSpec, Optimizer, orthogonalize


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((4, 6), (6, 3), (5,))]


def gradients(own: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step + 100)
    for p in own:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) * 10 ** (step % 5 - 2)


def named(own: list[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    return [(f"p{i}", p) for i, p in enumerate(own)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_100_steps_match_torch(dtype: torch.dtype, tolerance: float, decay: float):
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = AdamW(named(ours), lr=3e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    oracle = torch.optim.AdamW(theirs, lr=3e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    for step in range(100):
        rate = 1 - step / 200
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step(rate)
        oracle.param_groups[0]["lr"] = 3e-2 * rate
        oracle.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def test_adamw_first_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    """Bias correction: without it the first step would be (1 − β₁)/√(1 − β₂) ≈ 0.45 of that."""
    for scale in (1e-3, 1.0, 1e3):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        p.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) * scale
        AdamW([("p", p)], lr=0.1, betas=(0.9, 0.95), eps=1e-12).step(1.0)
        torch.testing.assert_close(p.detach(), torch.tensor([-0.1, 0.1, -0.1], dtype=torch.float64))


def test_adamw_leaves_parameters_without_gradient_alone():
    p = nn.Parameter(torch.ones(2))
    AdamW([("p", p)], lr=0.1, betas=(0.9, 0.95), weight_decay=0.5).step(1.0)
    assert torch.equal(p, torch.ones(2))


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
    Muon([("p", p)], lr=1.0).step(1.0)
    return p.detach()


def test_muon_update_has_a_flat_spectrum_and_momentum_alone_has_not():
    flat = spectrum(muon_update(skewed(16, 16)))
    assert flat.max() / flat.min() < 2.1
    raw = spectrum(skewed(16, 16))  # what the first update of plain momentum would be, but for a factor
    assert raw.max() / raw.min() > 25


def test_muon_scales_tall_matrices_by_the_root_of_their_aspect():
    torch.testing.assert_close(muon_update(skewed(48, 12)).norm(), muon_update(skewed(48, 12).mT).norm() * 2)


def test_muon_30_steps_match_torch():
    """PyTorch iterates in bf16, so the updates agree to bf16's three digits."""
    make = lambda: [nn.Parameter(skewed(8, 12)), nn.Parameter(skewed(12, 8)), nn.Parameter(skewed(8, 12))]  # noqa: E731
    ours, theirs = make(), make()
    optimizer = Muon(named(ours), lr=0.02, momentum=0.95, weight_decay=0.1)
    oracle = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True, adjust_lr_fn="original", eps=1e-7
    )
    for step in range(30):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step(1.0)
        oracle.step()
    for p, q, start in zip(ours, theirs, make(), strict=True):
        assert (p - q).norm() < 0.02 * (q - start).norm()


def test_muon_stacks_matrices_of_one_shape_without_mixing_them():
    own = [nn.Parameter(skewed(6, 9)) for _ in range(3)]
    gradients(own, 0)
    alone = [muon_update(p.grad) for p in own if p.grad is not None]
    for p in own:
        p.data.zero_()
    Muon(named(own), lr=1.0).step(1.0)
    for p, single in zip(own, alone, strict=True):
        torch.testing.assert_close(p.detach(), single)


def test_muon_spec_gives_every_parameter_to_exactly_one_rule():
    model = small_model()
    names = {name for name, _ in model.named_parameters()}
    held = [name.split(".", 2)[2] for name in MuonAdamWSpec().build(model).state() if ".count." not in name]
    muon = {name.split(".", 2)[2] for name in MuonAdamWSpec().build(model).state() if name.startswith("muon.")}
    assert set(held) == names
    assert muon == {name for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")}
    assert not any("embed" in name for name in muon)
    frozen = small_model().requires_grad_(False)
    assert MuonAdamWSpec().build(frozen).state() == {}


def test_muon_spec_takes_a_tied_embedding_once():
    spec = qwen3_shaped(vocab_size=8, context_length=4, d_model=8, layers=1, heads=2, tied=True)
    state = MuonAdamWSpec().build(Decoder(spec)).state()
    assert sum("embed" in name for name in state if ".mean." in name) == 1


def test_adamw_spec_decays_matrices_only():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    AdamWSpec(lr=0.1, weight_decay=0.5).build(model).step(1.0)
    for p, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (0.95 if p.ndim == 2 else 1.0))


def trained(build: Callable[[Decoder], Optimizer], steps: int, reload_at: int | None = None) -> list[Tensor]:
    model = small_model()
    optimizer = build(model)
    for step in range(steps):
        if step == reload_at:
            saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
            optimizer = build(model)
            optimizer.load_state(saved)
        next_token_loss(model, counting_batch(step)).backward()
        optimizer.step(1.0)
        model.zero_grad()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("build", [MuonAdamWSpec().build, AdamWSpec().build], ids=["muon", "adamw"])
def test_optimizer_state_saved_and_loaded_goes_on_bit_for_bit(build: Callable[[Decoder], Optimizer]):
    for whole, again in zip(trained(build, 6), trained(build, 6, reload_at=3), strict=True):
        assert torch.equal(whole, again)


def test_optimizer_refuses_another_models_state():
    state = AdamWSpec().build(nn.Linear(2, 2)).state()
    with pytest.raises(UserError, match="does not belong to this run; got a difference at"):
        AdamWSpec().build(nn.Linear(2, 2, bias=False)).load_state(state)


def test_muon_reaches_a_lower_loss_than_adamw_on_the_same_steps():
    def loss_after(build: Callable[[Decoder], Optimizer]) -> float:
        model = small_model()
        optimizer = build(model)
        for step in range(60):
            next_token_loss(model, counting_batch(step)).backward()
            optimizer.step(1 - step / 60)
            model.zero_grad()
        with torch.no_grad():
            return sum(float(next_token_loss(model, counting_batch(step))) for step in range(1000, 1010)) / 10

    best_adamw = min(loss_after(AdamWSpec(lr=lr, weight_decay=0.0).build) for lr in (3e-3, 1e-2, 3e-2))
    best_muon = min(loss_after(MuonAdamWSpec(lr=lr, matrix_lr=0.05).build) for lr in (1e-2, 3e-2))
    assert best_muon < best_adamw
