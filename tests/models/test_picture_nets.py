"""LeNet 1989 and AlexNet: their counts, what each unit can see, and the formula of response normalisation."""

from __future__ import annotations

import pytest
import torch

from underhood.models.alexnet import AlexNet, LocalResponse
from underhood.models.lenet import LeNet


def test_lenet_has_the_papers_weights_layer_by_layer():
    net = LeNet()
    layers = ((net.h1, net.b1), (net.h2, net.b2), (net.h3, net.b3), (net.out, net.b_out))
    assert [sum(p.numel() for p in layer) for layer in layers] == [1068, 2592, 5790, 310]


def test_lenet_units_see_a_patch_of_the_picture_only():
    torch.manual_seed(0)
    net = LeNet()
    x = torch.zeros(1, 1, 16, 16, requires_grad=True)
    seen = {}
    net.act.register_forward_hook(lambda _m, _i, out: seen.setdefault(len(seen), out))
    net(x)
    (slope,) = torch.autograd.grad(seen[0][0, 3, 4, 4], x)
    where = slope[0, 0].nonzero()
    assert (where.amin(0).tolist(), where.amax(0).tolist()) == ([6, 6], [10, 10])


@pytest.mark.parametrize(("unit", "maps"), [(0, range(8)), (4, range(4, 12)), (8, (*range(4), *range(8, 12)))])
def test_lenet_maps_of_the_second_layer_see_eight_of_twelve(unit: int, maps):
    torch.manual_seed(0)
    net = LeNet()
    outputs: list[torch.Tensor] = []
    net.act.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    net(torch.rand(1, 1, 16, 16, requires_grad=True))
    (slope,) = torch.autograd.grad(outputs[1][0, unit].sum(), outputs[0])
    assert slope[0].abs().sum((1, 2)).nonzero().flatten().tolist() == list(maps)


@pytest.mark.parametrize(("groups", "weights"), [(2, 60_965_224), (1, 62_378_344)])
def test_alexnet_weights_match_the_published_count(groups: int, weights: int):
    with torch.device("meta"):
        net = AlexNet(groups)
    assert sum(p.numel() for p in net.parameters()) == weights


def test_alexnet_reads_227_pixels_for_the_papers_55():
    conv = torch.nn.Conv2d(3, 96, 11, stride=4)
    assert conv(torch.zeros(1, 3, 227, 227)).shape[-1] == 55
    assert conv(torch.zeros(1, 3, 224, 224)).shape[-1] == 54
    with torch.inference_mode():
        assert AlexNet().eval()(torch.zeros(1, 3, 227, 227)).shape == (1, 1000)


@pytest.mark.parametrize("n", [3, 5])
def test_response_normalisation_matches_torch_with_its_alpha_divided(n: int):
    a = torch.randn(2, 7, 4, 3, dtype=torch.float64) * 20
    theirs = torch.nn.LocalResponseNorm(n, alpha=0.01 * n, beta=0.6, k=1.5)(a)
    torch.testing.assert_close(LocalResponse(n, k=1.5, alpha=0.01, beta=0.6)(a), theirs)
