"""Letter networks: the backward pass by hand against autograd, compiled steps against plain, the lectures' split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from needs import shared_data
from underhood.kernels.jit import HAS_NUMBA
from underhood.models.nplm import NPLMSpec
from underhood.nn.batch_norm import BatchNormSpec
from underhood.path.lib import letter_nets as nets
from underhood.path.lib.names import examples, split_names

SHAPES = [
    nets.LetterNetShape(hidden=20, bias=True),
    nets.LetterNetShape(hidden=20, norm=False, bias=True),
    nets.LetterNetShape(hidden=12, joins=(2, 2, 2)),
    nets.LetterNetShape(hidden=12, joins=(2, 2, 2), per_position=True),
]


def random_examples(shape: nets.LetterNetShape, *size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randint(27, (*size, shape.context), generator=generator),
        torch.randint(27, size, generator=generator),
    )


def loss_by_torch(shape: nets.LetterNetShape, weights: nets.Weights, x_BT: Tensor, y_B: Tensor, net: int) -> Tensor:
    h = weights["embed"][net][x_BT]
    for layer, joined in enumerate(shape.joins):
        z = h.unflatten(1, (-1, joined)).flatten(2) @ weights[f"weight_{layer}"][net]
        if shape.bias:
            z = z + weights[f"bias_{layer}"][net]
        if shape.norm:
            over = (0,) if shape.per_position else (0, 1)
            variance, mean = torch.var_mean(z, over, keepdim=True)
            z = (z - mean) / (variance + 1e-5).sqrt() * weights[f"gain_{layer}"][net] + weights[f"shift_{layer}"][net]
        h = z.tanh()
    return torch.nn.functional.cross_entropy(h[:, 0] @ weights["output"][net] + weights["output_bias"][net], y_B)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_by_hand_matches_autograd(shape: nets.LetterNetShape):
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (weight + torch.randn(weight.shape, generator=generator) / 9).double().requires_grad_()
        for name, weight in nets.initial(shape, [0, 1]).items()
    }
    x, y = random_examples(shape, 2, 32)
    losses = [loss_by_torch(shape, weights, x[net], y[net], net) for net in range(2)]
    expected = torch.autograd.grad(sum(losses), list(weights.values()))
    with torch.no_grad():
        kept = nets.forward(shape, weights, x)
        torch.testing.assert_close(nets.losses(kept["scores"], y), torch.stack(losses))
        ours = nets.backward(shape, weights, kept, y)
    for name, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-13)
    assert sum(weight[0].numel() for weight in weights.values()) == shape.parameters


@pytest.mark.slow
@pytest.mark.skipif(not HAS_NUMBA, reason="compiles")
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_steps_match_plain_ones(shape: nets.LetterNetShape):
    x, y = random_examples(shape, 500)
    plain, compiled = nets.initial(shape, [0, 5]), nets.initial(shape, [0, 5])
    of_plain = nets.train(shape, plain, x, y, steps=40, seeds=[0, 5])
    of_compiled = nets.train(shape, compiled, x, y, steps=40, seeds=[0, 5], compiled=True)
    torch.testing.assert_close(of_compiled[1], of_plain[1], rtol=1e-4, atol=1e-4)
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-3, atol=1e-4)
    for name, statistic in of_plain[0].items():
        torch.testing.assert_close(of_compiled[0][name], statistic, rtol=1e-3, atol=1e-4)


def test_trained_letter_net_is_the_librarys_model():
    """The same weights in `NPLM` give the same loss: the network is not a model of its own."""
    shape = nets.LetterNetShape(hidden=20)
    x, y = random_examples(shape, 400)
    weights = nets.initial(shape, [4])
    statistics, _ = nets.train(shape, weights, x, y, steps=50, seeds=[4])
    model = NPLMSpec(vocab_size=27, order=4, d_model=10, hidden=20, direct=False, norm=BatchNormSpec()).build().eval()
    copies = {
        "embed.weight": weights["embed"],
        "hidden.weight": weights["weight_0"].mT,
        "norms.0.weight": weights["gain_0"][:, 0],
        "norms.0.bias": weights["shift_0"][:, 0],
        "norms.0.running_mean": statistics["mean_0"].flatten()[None],
        "norms.0.running_var": statistics["variance_0"].flatten()[None],
        "unembed.weight": weights["output"].mT,
        "unembed.bias": weights["output_bias"][:, 0],
    }
    model.load_state_dict({name: copy[0] for name, copy in copies.items()}, strict=False)
    expected = torch.nn.functional.cross_entropy(model(x)[:, -1], y).item()
    assert nets.evaluate(shape, weights, statistics, x, y) == pytest.approx([expected], abs=1e-5)


def test_examples_are_every_letter_with_those_before_it():
    x, y = examples(["emma", "a"], 3)
    spelled = [["." if id == 0 else chr(96 + id) for id in row] for row in torch.column_stack((x, y)).tolist()]
    assert [("".join(before), letter) for *before, letter in spelled] == [
        ("...", "e"),
        ("..e", "m"),
        (".em", "m"),
        ("emm", "a"),
        ("mma", "."),
        ("...", "a"),
        ("..a", "."),
    ]


def test_split_of_the_names_has_the_lectures_sizes():
    data = shared_data()
    if data is None:
        pytest.skip("needs the list of names")
    names = (data / "text/names/names.txt").read_text(encoding="utf-8").split()
    sizes = [len(examples(array, 3)[1]) for array in split_names(names)]
    assert sizes == [182_625, 22_655, 22_866]  # printed in part 2 of makemore
