"""Mixture of experts: many feed-forwards, of which each token uses a few (Shazeer et al. 2017; Jiang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from underhood.nn.feedforward import Activation, GatedMLPSpec
from underhood.nn.forward_context import ForwardContext


@dataclass(frozen=True, kw_only=True)
class MoESpec:
    """``Σ_e weight_e(x) · expert_e(x)`` over the `experts_per_token` experts that the router scores highest.

    Source: Shazeer et al. 2017, eqs 1–5 without the noise; Mixtral (Jiang et al. 2024), section 2.1.

    Attributes:
        experts: E, how many there are.
        experts_per_token: how many of them a token uses.
        d_ff: F, the inner width of each.
        activation: of each expert's gate.
        normalise: the weights of the chosen experts sum to one (Mixtral); without it they keep their shares of all
            experts' (some Qwen models).
        shared_d_ff: the inner width of an expert that every token uses beside the chosen ones, weighted by the sigmoid
            of a score of its own (Qwen2-MoE, Yang et al. 2024, section 2.2.2); None for none.
    """

    experts: int
    experts_per_token: int
    d_ff: int
    activation: Activation = "silu"
    normalise: bool = True
    shared_d_ff: int | None = None

    def __post_init__(self):
        if not 1 <= self.experts_per_token <= self.experts:
            raise ValueError(
                f"experts_per_token must be from 1 to experts ({self.experts}), got {self.experts_per_token}"
            )

    def facts(self) -> dict[str, str]:
        """The spec in words."""
        shared = f", and a shared one of {self.shared_d_ff:,}" if self.shared_d_ff else ""
        words = f"{self.experts} experts of {self.d_ff:,}, {self.experts_per_token} used per token{shared}"
        return {"Feed-forward": words}

    def build(self, d_model: int) -> "MixtureOfExperts":
        return MixtureOfExperts(d_model, self)


class MixtureOfExperts(nn.Module):
    """Routes each token through its experts. Hooks on `router` see every expert's score, on `choice` who was taken."""

    def __init__(self, d_model: int, spec: MoESpec):
        super().__init__()
        self.spec = spec
        self.router = nn.Linear(d_model, spec.experts, bias=False)
        self.choice = Choice(spec.experts_per_token, spec.normalise)
        expert = GatedMLPSpec(d_ff=spec.d_ff, activation=spec.activation)
        self.experts = nn.ModuleList(expert.build(d_model) for _ in range(spec.experts))
        self.shared_expert: nn.Module | None = None
        if spec.shared_d_ff is not None:
            self.shared_expert = GatedMLPSpec(d_ff=spec.shared_d_ff, activation=spec.activation).build(d_model)
            self.shared_expert_gate = nn.Linear(d_model, 1, bias=False)

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext) -> Float[Tensor, "B T D"]:
        x_ND = x_BTD.flatten(0, 1)
        weight_NA, chosen_NA = self.choice(self.router(x_ND))
        # Sorted by expert, so that each one reads all its tokens at once.
        order = chosen_NA.flatten().argsort(stable=True)
        token_of = order.div(self.spec.experts_per_token, rounding_mode="floor")
        counts = chosen_NA.flatten().bincount(minlength=self.spec.experts).tolist()
        weights = weight_NA.flatten()[order].to(x_ND.dtype)
        sum_ND = torch.zeros_like(x_ND)
        start = 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count:
                rows, share = token_of[start : start + count], weights[start : start + count]
                y_ND = expert(x_ND.index_select(0, rows)[None], ctx)[0]
                sum_ND = sum_ND.index_add(0, rows, y_ND * share[:, None])
                start += count
        if self.shared_expert is not None:
            sum_ND = sum_ND + self.shared_expert_gate(x_ND).sigmoid() * self.shared_expert(x_ND[None], ctx)[0]
        return sum_ND.view_as(x_BTD)


class Choice(nn.Module):
    """Scores of all experts (N, E) to the weights and the numbers of the chosen ones, both (N, active), best first."""

    def __init__(self, active: int, normalise: bool):
        super().__init__()
        self.active, self.normalise = active, normalise

    def forward(self, score_NE: Tensor) -> tuple[Tensor, Tensor]:
        weight_NA, chosen_NA = score_NE.float().softmax(dim=-1).topk(self.active, dim=-1)
        if self.normalise:
            weight_NA = weight_NA / weight_NA.sum(dim=-1, keepdim=True)
        return weight_NA, chosen_NA

    def extra_repr(self) -> str:
        return f"active={self.active}, normalise={self.normalise}"
