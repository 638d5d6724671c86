"""The loss over a large vocabulary without its logits: one slice of positions at a time.

For a vocabulary of 50,257 the logits of a thousand positions fill 200 MB, and softmax, loss and gradient want as much
again each. But a position's part of the gradient needs no other position. So a slice is unembedded, scored and
differentiated at once, and only the gradient with respect to the hidden states is kept; the slice's logits are gone
before the next one's are made (the idea of Liger Kernel's fused linear cross-entropy, Hsu et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underhood.train.cross_entropy import differentiate_in_place

SLICE_VALUES = 1 << 23
"""Logits per slice: 32 MB in fp32."""

FEWEST_ROWS = 1024
"""Rows per slice even where that is more: for each slice the product reads and repacks the whole unembedding, which
for 50,257 tokens and 166 rows takes a sixth of its time."""


def unembedded_loss(
    hidden_ND: Float[Tensor, "N D"],
    unembed: nn.Module,
    targets_N: Int[Tensor, "N"],
    *,
    vocab_size: int,
    slice_values: int | None = None,
) -> tuple[Tensor, int]:
    """Summed cross-entropy of ``unembed(hidden)`` in nats, a scalar, and how many targets are the likeliest token.

    The same number and gradients as `F.cross_entropy` of the fp32 logits with ``reduction="sum"``, for any unembedding
    whose parameters may or may not be trained.

    Args:
        unembed: scores from hidden states, position by position: nothing may mix positions.
        slice_values: bound on the logits held at one time; None takes `SLICE_VALUES`, but `FEWEST_ROWS` at least.
    """
    rows = max(1, slice_values // vocab_size) if slice_values else max(FEWEST_ROWS, SLICE_VALUES // vocab_size)
    learning = torch.is_grad_enabled()
    trained = [parameter for parameter in unembed.parameters() if parameter.requires_grad and learning]
    right: list[int] = []
    total: Tensor = _Sliced.apply(hidden_ND, targets_N, unembed, rows, right, *trained)  # type: ignore[assignment]
    return total, sum(right)


class _Sliced(torch.autograd.Function):
    """Σ −log p(target) over slices, its gradients worked out on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        targets_N: Tensor,
        unembed: Callable[[Tensor], Tensor],
        rows: int,
        right: list[int],
        *trained: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or bool(trained)
        total = torch.zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32), device=hidden_ND.device)
        grad_ND = torch.empty_like(hidden_ND) if wanted else None
        grads = [torch.zeros_like(parameter) for parameter in trained]
        for first in range(0, hidden_ND.shape[0], rows):
            here = slice(first, first + rows)
            with torch.set_grad_enabled(wanted):
                piece_nD = hidden_ND[here].detach().requires_grad_(wanted)
                logits_nV = unembed(piece_nD)
            gradient_nV = logits_nV.detach()  # the same memory: the scores are not needed any more
            loss, hits = differentiate_in_place(gradient_nV, targets_N[here])
            total += loss
            right.append(hits)
            if grad_ND is not None:
                gradients = torch.autograd.grad(logits_nV, [piece_nD, *trained], gradient_nV)
                grad_ND[here] = gradients[0]
                for sum_, gradient in zip(grads, gradients[1:], strict=True):
                    sum_ += gradient
            del logits_nV, gradient_nV  # before the next slice's are made
        ctx.save_for_backward(grad_ND, *grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_ND, *grads = ctx.saved_tensors
        scaled = [gradient * grad.to(gradient.dtype) for gradient in (grad_ND, *grads)]
        return scaled[0], None, None, None, None, *scaled[1:]
