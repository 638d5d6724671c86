"""Losses of trl 1.16 on given log-probabilities: its trainers' own methods, called without a trainer."""

from __future__ import annotations

import os
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


class Accelerator(SimpleNamespace):
    """A single process: gathering gives back what it gets."""

    device = torch.device("cpu")

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather


def scored(log_probs: Tensor, **more: Any) -> Any:
    """A model that answers every call with these log-probabilities (B, T), as trl's fused head gives them."""
    zeros = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), **more)
    return lambda **_: outputs


def trl_dpo_loss(
    kind: str, logps_BT: Tensor, mask_BT: Tensor, reference: tuple[Tensor, Tensor], *, beta: float, smoothing: float
) -> Tensor:
    """`DPOTrainer._compute_loss` for a `loss_type`; T answer positions follow a prompt of one token."""
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    whole_BT = torch.cat([torch.zeros_like(mask_BT[:, :1]), mask_BT], dim=1).long()
    inputs = {
        "input_ids": torch.zeros_like(whole_BT),
        "attention_mask": torch.ones_like(whole_BT),
        "completion_mask": whole_BT,
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
    }
    return DPOTrainer._compute_loss(trainer, scored(logps_BT), inputs, False)  # type: ignore[arg-type]


def trl_kto_loss(
    logps_BT: Tensor, mask_BT: Tensor, reference_B: Tensor, kl: tuple[Tensor, Tensor], desirable_B: Tensor, spec: Any
) -> Tensor:
    """`KTOTrainer._compute_loss`, its two passes replaced by the given log-probabilities."""
    from trl.trainer.kto_trainer import KTOTrainer

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=spec.beta,
        desirable_weight=spec.desirable_weight,
        undesirable_weight=spec.undesirable_weight,
        _compute_kl_logps=lambda model, batch: kl[0],
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    whole_BT = torch.cat([torch.zeros_like(mask_BT[:, :1]), mask_BT], dim=1).long()
    inputs = {
        "input_ids": torch.zeros_like(whole_BT),
        "attention_mask": torch.ones_like(whole_BT),
        "completion_mask": whole_BT,
        "label": desirable_B,
        "ref_logps": reference_B,
        "ref_KL_logps": kl[1],
    }
    return KTOTrainer._compute_loss(trainer, scored(logps_BT), inputs, False)  # type: ignore[arg-type]


def trl_orpo_loss(chosen_N: Tensor, rejected_N: Tensor, *, beta: float) -> Tensor:
    """The odds-ratio part of ORPO's loss: what `ORPOTrainer.get_batch_loss_metrics` adds to the fine-tuning loss."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=beta, accelerator=Accelerator())
    return -ORPOTrainer.odds_ratio_loss(trainer, chosen_N, rejected_N)[0].mean()  # type: ignore[arg-type]


def trl_simpo_loss(chosen_N: Tensor, rejected_N: Tensor, *, beta: float, gamma: float) -> Tensor:
    """SimPO as trl has it: `CPOTrainer` with `loss_type="simpo"` and ``cpo_alpha=0``, which drops CPO's own term."""
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        beta=beta, simpo_gamma=gamma, loss_type="simpo", label_smoothing=0.0, alpha=0.0, cpo_alpha=0.0
    )
    trainer.accelerator, trainer.aux_loss_enabled, ones = Accelerator(), False, torch.ones(())
    trainer.concatenated_forward = lambda model, batch: (chosen_N, rejected_N, ones, ones, ones)
    trainer.cpo_loss = lambda *scores: CPOTrainer.cpo_loss(trainer, *scores)  # type: ignore[arg-type]
    return CPOTrainer.get_batch_loss_metrics(trainer, None, {})[0]  # type: ignore[arg-type]
