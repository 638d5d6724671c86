"""Board probes on planted directions: found exactly, reflected exactly, and pushed where it was asked for."""

from __future__ import annotations

import pytest
import torch

from underhood.evals.board_probe import OTHER, OWN, disc_error, fit_probe, flip_push, pushed, read_board
from underhood.models.decoder import qwen3_shaped


def planted(count: int, cells: int = 4, width: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Streams that are sums of one direction for each cell's state."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(width, cells * 3, generator=generator))[0].T.unflatten(0, (cells, 3))
    states = torch.randint(3, (count, cells), generator=generator)
    return directions[torch.arange(cells), states].sum(dim=1), states


def test_probe_reads_a_board_that_is_linear_in_the_stream_and_not_one_that_is_not_there():
    x, states = planted(2000)
    probe = fit_probe(x[:1500], states[:1500], epochs=40, seed=0, batch=128)
    assert disc_error(read_board(probe, x[1500:]), states[1500:]) == 0
    shuffled = states[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    control = fit_probe(x[:1500], shuffled[:1500], epochs=10, seed=0, batch=128)
    assert disc_error(read_board(control, x[1500:]), shuffled[1500:]) > 0.5


def test_twice_the_push_mirrors_the_difference_of_both_sides():
    x, states = planted(2000)
    probe = fit_probe(x, states, epochs=40, seed=0, batch=128)
    cell = torch.zeros(100, dtype=torch.long)
    rows = (states[:, 0] > 0).nonzero()[:100, 0]
    side = states[rows, 0]
    push = flip_push(probe, x[rows], cell, side)

    def difference(stream: torch.Tensor) -> torch.Tensor:
        logits = stream @ probe[0, :, :-1].T + probe[0, :, -1]
        return logits.gather(1, (OWN + OTHER - side)[:, None]) - logits.gather(1, side[:, None])

    torch.testing.assert_close(difference(x[rows] + push), torch.zeros(100, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(difference(x[rows] + 2 * push), -difference(x[rows]), atol=1e-3, rtol=1e-3)
    assert (read_board(probe, x[rows] + 2 * push)[:, 0] == OWN + OTHER - side).all()
    assert (read_board(probe, x[rows] + 2 * push)[:, 1:] == states[rows, 1:]).all()


def test_only_one_position_per_row_is_pushed():
    model = qwen3_shaped(vocab_size=9, context_length=6, d_model=16, layers=2, heads=2).initialize(seed=0)
    with torch.no_grad():
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(6).expand(2, -1)
    with torch.no_grad(), pushed(model, [1], torch.tensor([2, 4]), lambda layer, x: torch.ones_like(x) * (layer + 1)):
        changed = model(tokens)
    same = torch.isclose(changed, model(tokens)).all(dim=-1)
    assert same.tolist() == [[at != 2 for at in range(6)], [at != 4 for at in range(6)]]


def test_errors_are_counted_on_discs():
    states = torch.tensor([[0, 1, 2, 0]])
    assert disc_error(torch.tensor([[1, 1, 1, 0]]), states) == pytest.approx(0.5)
