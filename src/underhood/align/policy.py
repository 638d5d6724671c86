"""Policy of reinforcement learning: the trained language model, its value head, and its frozen reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from underhood.align.log_probs import padded_positions, scattered, score_responses, token_log_probs
from underhood.infer.sample import SamplingSpec
from underhood.models.decoder import Decoder
from underhood.nn.lora import adapters_merged, adapters_off, lora_layers


@dataclass(frozen=True)
class PolicyOutputs:
    """A policy's view of sampled answers, token by token; 0 outside the answers.

    Attributes:
        logp_NT: log-probability of each response token under the sampling distribution, in nats.
        entropy_NT: entropy of that distribution, in nats, without gradient.
        values_NT: expected return from each response token on; None without a value head.
    """

    logp_NT: Float[Tensor, "N T"]
    entropy_NT: Float[Tensor, "N T"]
    values_NT: Float[Tensor, "N T"] | None


class ValueHead(nn.Module):
    """Value function of PPO: a linear map from the hidden state before each token to its expected return.

    With an `init_std` of 0 it begins by expecting nothing (Huang et al. 2024).
    """

    def __init__(self, d_model: int, init_std: float = 0.0, seed: int = 0):
        super().__init__()
        self.linear = nn.Linear(d_model, 1)
        with torch.no_grad():
            noise_1D = torch.randn(1, d_model, generator=torch.Generator().manual_seed(seed))
            self.linear.weight.copy_(noise_1D * init_std)
            self.linear.bias.zero_()

    def forward(self, hidden_MD: Float[Tensor, "M D"]) -> Float[Tensor, "M"]:
        return self.linear(hidden_MD)[:, 0]


class Policy(nn.Module):
    """The model that learns, with what reinforcement learning needs beside it.

    Dropout is off in updates as in rollouts, so that the ratio of an unchanged policy is 1 (Huang et al. 2024).

    Attributes:
        model: learns whole, or its LoRA adapters do.
        value: the value head, or None.

    Args:
        sampling: temperature and truncation of the rollouts; log-probabilities are taken under the same.
        value_init_std: gives it a value head; None gives none.
        reference: whether the reference is needed. With LoRA it is the model with its adapters off; else a frozen copy.
        dropout: leaves dropout on in updates, to see what that does.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        sampling: SamplingSpec,
        value_init_std: float | None = None,
        reference: bool = True,
        dropout: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.sampling, self.dropout = model, sampling, dropout
        self.value = None
        if value_init_std is not None:
            device = next(model.parameters()).device
            self.value = ValueHead(model.spec.d_model, value_init_std, seed).to(device)
        self.adapted = any(True for _ in lora_layers(model))
        frozen = copy.deepcopy(model).requires_grad_(False).eval() if reference and not self.adapted else None
        self._frozen = (frozen,)  # in a tuple, so that it is neither trained nor saved

    def forward(
        self, ids_NT: Int[Tensor, "N T"], mask_NT: Bool[Tensor, "N T"], response_mask_NT: Bool[Tensor, "N T"]
    ) -> PolicyOutputs:
        """Log-probabilities, entropies and values of sampled answers; gradient flows."""
        self.model.train(self.dropout and torch.is_grad_enabled())
        rows_M, columns_M = response_mask_NT[:, 1:].nonzero(as_tuple=True)  # the token before each response token
        hidden_NTD = self.model.hidden_states(ids_NT[:, :-1], positions=padded_positions(mask_NT[:, :-1]))
        hidden_MD = hidden_NTD[rows_M, columns_M]
        logp_M, entropy_M = token_log_probs(
            self.model.unembed(hidden_MD),
            ids_NT[rows_M, columns_M + 1],
            temperature=self.sampling.temperature,
            top_k=self.sampling.top_k,
            top_p=self.sampling.top_p,
            entropy=True,
        )
        assert entropy_M is not None
        values_NT = None if self.value is None else scattered(self.value(hidden_MD).float(), response_mask_NT)
        self.model.train(False)
        return PolicyOutputs(scattered(logp_M, response_mask_NT), scattered(entropy_M, response_mask_NT), values_NT)

    @torch.no_grad()
    def reference_log_probs(
        self, ids_NT: Int[Tensor, "N T"], mask_NT: Bool[Tensor, "N T"], response_mask_NT: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "N T"]:
        """The reference's log-probability of each response token, under the same temperature and truncation."""
        with self._reference() as model:
            return score_responses(
                model,
                ids_NT,
                mask_NT,
                response_mask_NT,
                temperature=self.sampling.temperature,
                top_k=self.sampling.top_k,
                top_p=self.sampling.top_p,
            ).logp_NT

    @contextmanager
    def _reference(self) -> Iterator[Decoder]:
        if self.adapted:
            with adapters_off(self.model):
                yield self.model.eval()
        else:
            [frozen] = self._frozen
            if frozen is None:
                raise ValueError("this policy was made without a reference")
            yield frozen

    @contextmanager
    def ready_to_sample(self) -> Iterator[Decoder]:
        """The model for rollouts: dropout off, adapters merged."""
        with adapters_merged(self.model):
            yield self.model.eval()
