"""Su et al. 2021: rotated queries and keys, whose product knows only how far apart they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.nn.attention import AttentionSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.positions import LearnedPositionSpec
from underhood.nn.rope import RotarySpec, rotate
from underhood.path.lib.letter_models import CONTEXT, by_eight, letter_model, loss_by_position, trained

SHIFTS = (1, 17, 1000, 100_000)
HEAD, DISTANCES = 128, tuple(range(257))


def run(trial: Trial) -> None:
    curves: dict[str, list[Tensor]] = {"learnt positions": [], "rotary positions": []}
    for seed in trial.each_seed():
        q_BHTK, k_BHTK = torch.randn(2, 1, 1, 16, HEAD, generator=torch.Generator().manual_seed(seed)).double()
        unmoved_TT = scores(q_BHTK, k_BHTK, 0, turn_keys=not trial.ablated("keys"))
        for shift in SHIFTS:
            moved_TT = scores(q_BHTK, k_BHTK, shift, turn_keys=not trial.ablated("keys"))
            trial.measure("relative", float((moved_TT - unmoved_TT).abs().max() / unmoved_TT.abs().max()))
        if trial.is_ablation:
            continue
        d_model, layers, steps, batch = trial.by_scale(smoke=(32, 1, 50, 8), report=(64, 2, 200, 16))
        unturned = AttentionSpec(heads=4, rotary=None)
        for name in trial.each(curves, "positions"):
            is_rotary = name == "rotary positions"
            mixer = AttentionSpec(heads=4) if is_rotary else unturned
            positions = None if is_rotary else LearnedPositionSpec()
            spec = letter_model(mixer=mixer, positions=positions, d_model=d_model, layers=layers)
            model = trained(spec, seed=seed, steps=steps, batch=batch, tell=trial.progress)
            curves[name].append(loss_by_position(model, 4 * CONTEXT if is_rotary else CONTEXT))
        inside_T, outside_T = curves["rotary positions"][-1][:CONTEXT], curves["rotary positions"][-1][3 * CONTEXT :]
        trial.measure("loss", float(loss_of(curves["rotary positions"][-1]) - loss_of(curves["learnt positions"][-1])))
        trial.measure("longer", float(outside_T.mean() - inside_T[CONTEXT // 2 :].mean()))
    if trial.is_ablation:
        return
    bound = decay(HEAD)
    trial.measure("decay", bound[50] / bound[0])
    check(trial)
    series = []
    for name, rows in curves.items():
        means = by_eight(rows)
        series.append(Series(name, tuple(range(4, 8 * len(means), 8)), means))
    trial.plot(
        title="Trained on 64 letters, read up to 256",
        x="letters read before",
        y="nats per letter",
        series=series,
        note="Means over 8 letters. Learnt positions end at 64: there is no vector for a later one.",
    )
    trial.plot(
        title="Two tokens further apart can agree less",
        x="tokens between query and key",
        y="bound on the score, relative",
        series=[Series("head of 128", DISTANCES, tuple(bound / bound[0]))],
        note="Mean length of the partial sums of all pairs' arrows (section 3.4.3): distant arrows point everywhere.",
    )


def loss_of(nats_T: Tensor) -> Tensor:
    return nats_T[:CONTEXT].mean()


def scores(q_BHTK: Tensor, k_BHTK: Tensor, shift: int, *, turn_keys: bool = True) -> Tensor:
    """Products of all queries with all keys when the first token is at position `shift`."""
    length, spec = q_BHTK.shape[2], RotarySpec()
    positions_BT = torch.arange(shift, shift + length)[None]
    tables = spec.tables(ForwardContext(positions_BT, positions_BT, None), q_BHTK.shape[-1], q_BHTK.dtype)
    turned_BHTK = rotate(k_BHTK, tables) if turn_keys else k_BHTK
    return (rotate(q_BHTK, tables) @ turned_BHTK.mT)[0, 0]


def decay(head_dim: int) -> np.ndarray:
    """The mean of ``|S_i|`` by distance, S_i the sum of the first i pairs' unit arrows (RoFormer, equation 37)."""
    frequencies = RotarySpec().frequencies(head_dim, torch.device("cpu"), torch.float64).numpy()
    arrows = np.exp(1j * np.array(DISTANCES)[:, None] * frequencies)
    return np.abs(arrows.cumsum(axis=1)).mean(axis=1)


def check(trial: Trial) -> None:
    """Meta's layout: neighbouring numbers as complex numbers, multiplied by e^(i m θ)."""
    x_BHTK = torch.randn(1, 2, 9, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions_BT = torch.arange(9)[None]
    spec = RotarySpec()
    angles = torch.outer(torch.arange(9.0, dtype=torch.float64), 10_000.0 ** -(torch.arange(0, 16, 2).double() / 16))
    turned = torch.view_as_complex(x_BHTK.unflatten(-1, (8, 2)).contiguous()) * torch.polar(angles * 0 + 1, angles)
    theirs_BHTK = torch.view_as_real(turned).flatten(-2)
    order = torch.cat([torch.arange(0, 16, 2), torch.arange(1, 16, 2)])
    tables = spec.tables(ForwardContext(positions_BT, positions_BT, None), 16, torch.float64)
    worst = float((rotate(x_BHTK[..., order], tables) - theirs_BHTK[..., order]).abs().max())
    trial.oracle(
        "Meta's complex product is the same after reordering", worst < 1e-12, f"largest difference {worst:.1e}"
    )
