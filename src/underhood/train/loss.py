"""Losses: functions of a model and a batch, in nats per predicted token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch


def next_token_loss(model: LanguageModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the targets that are not `IGNORE`, a scalar in nats.

    Cross-entropy is taken in fp32 whatever the logits' type: in bf16 the log-sum-exp of a large vocabulary loses the
    small differences that training lives on.
    """
    logits_BTV = model(batch.tokens, positions=batch.positions)
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORE)
