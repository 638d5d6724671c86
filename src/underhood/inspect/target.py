"""Targets of an explanation: a token's logit or log-probability after a position, alone or against another token's.

Every method here explains one number. Tokens after the position can't change it, because a decoder is causal, so
prompts are cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.patching import run_from
from underhood.inspect.trace import checked_position, prompt_tokens
from underhood.models.decoder import Decoder

BATCH_TOKENS = 1024
"""Tokens of a forward pass without gradients: more at once are not read faster by a CPU, and take more memory."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The number that is explained.

    Attributes:
        token: an id.
        against: another id, whose logit is subtracted (contrastive explanation, Yin and Neubig 2022).
        position: of the prompt, after which the token is scored; negative ones from the end.
        logprob: explains the log-probability (natural logarithm) in place of the logit. The difference of two
            log-probabilities is that of the logits.
    """

    token: int
    against: int | None = None
    position: int = -1
    logprob: bool = False

    def of(self, logits_BV: Float[Tensor, "B V"]) -> Float[Tensor, "B"]:
        """The number in each of some rows of logits."""
        if self.against is not None:
            return logits_BV[:, self.token] - logits_BV[:, self.against]
        return logits_BV[:, self.token] - (logits_BV.logsumexp(dim=-1) if self.logprob else 0.0)

    def named(self, pieces: Sequence[str]) -> str:
        """The target in words.

        Args:
            pieces: the token as text, and the other one.
        """
        if self.against is not None:
            return f"logit of {pieces[0]} minus that of {pieces[1]}"
        return f"{'log-probability' if self.logprob else 'logit'} of {pieces[0]}"


def explained_prompt(loaded: LoadedModel, prompt: str | Sequence[int], target: Target) -> list[int]:
    """The prompt's ids up to the position after which the target is scored.

    Raises:
        UserError: the prompt has no such position, or the vocabulary no such token; both tokens are the same.
    """
    ids, size = prompt_tokens(loaded, prompt), known_tokens(loaded.decoder)
    position = checked_position(target.position, len(ids))
    check_tokens(loaded, [target.token] if target.against is None else [target.token, target.against])
    if target.token == target.against:
        raise UserError("a token can't be compared with itself", expected=f"two different ids below {size}")
    return ids[: position + 1]


def check_tokens(loaded: LoadedModel, tokens: Sequence[int]) -> None:
    """Raises a `UserError` for an id that the vocabulary does not have."""
    size = known_tokens(loaded.decoder)
    if unknown := [token for token in tokens if not 0 <= token < size]:
        raise UserError(f"the vocabulary has no token {unknown[0]}", expected=f"an id from 0 to {size - 1}")


def known_tokens(model: Decoder) -> int:
    """How many ids have a token."""
    return model.vocab_size if model.token_count is None else min(model.token_count, model.vocab_size)


def logits_from(model: Decoder, layer: int, stream_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B V"]:
    """Logits after the last token, from the residual stream before a layer on; ids without a token are left out."""
    if layer == len(model.blocks):
        return model.unembed(model.norm(stream_BTD[:, -1])).float()[:, : known_tokens(model)]
    return run_from(model, layer, stream_BTD)[:, : known_tokens(model)]


def first_stream(model: Decoder, tokens_BT: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], Tensor | float]:
    """Token embeddings, and the position embeddings (T, D) that are added to them, or 0."""
    embedded_BTD = model.embed(tokens_BT)
    if model.position_embed is None:
        return embedded_BTD, 0.0
    positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    return embedded_BTD, model.position_embed(positions).to(embedded_BTD.dtype)


@torch.no_grad()
def score_prompts(model: Decoder, ids_NT: Int[Tensor, "N T"], target: Target) -> Float[Tensor, "N"]:
    """The target after the last token of each prompt, in batches of `BATCH_TOKENS`."""
    scores = []
    for ids_BT in ids_NT.split(max(1, BATCH_TOKENS // ids_NT.shape[1])):
        embedded_BTD, positions = first_stream(model, ids_BT.to(device_of(model)))
        scores.append(target.of(logits_from(model, 0, embedded_BTD + positions)).cpu())
    return torch.cat(scores)


def neutral_token(loaded: LoadedModel) -> int:
    """A token that says little, to replace others with: a blank, a line break, or the first id."""
    for text in (" ", "\n"):
        try:
            ids = loaded.tokenizer.encode(text)
        except UserError:  # not in the vocabulary
            continue
        if len(ids) == 1:
            return ids[0]
    return 0
