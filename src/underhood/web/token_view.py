"""Token probabilities of an answer, with the most probable alternatives at each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.core.protocols import HiddenStateModel, Tokenizer
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.ui.visible_bytes import visible

MOST_TOP = 20
CHUNK = 512
"""Positions scored at once: a vocabulary of 150,000 takes 300 MB for as many."""


def prompt_of(loaded: LoadedModel, messages: Sequence[Mapping[str, str]] | None, prompt: str | None) -> list[int]:
    """The ids that the answer followed: a conversation as the model's template writes it, or a text to continue.

    Raises:
        UserError: a conversation for a model that has not learnt to chat.
    """
    if messages is None:
        return loaded.prompt_ids(prompt or "")
    if loaded.template is None:
        raise UserError(f"the {loaded.stage} model has not learnt to chat", fix="Give a prompt instead of messages")
    return loaded.template.render(loaded.tokenizer, list(messages), add_generation_prompt=True).ids


def answer_ids(
    tokenizer: Tokenizer, known: Mapping[bytes, int], text: str, pieces: Sequence[bytes] | None
) -> tuple[list[int], bool]:
    """The ids of an answer, and whether they are surely those that were written.

    A text can be cut into tokens in many ways, and a model that draws does not always take the tokenizer's. The bytes
    of the single tokens tell which; without them the text is encoded anew.

    Args:
        known: see `ids_by_bytes`.
    """
    if pieces:
        token_ids = [known.get(piece) for piece in pieces]
        ids = [token for token in token_ids if token is not None]
        if len(ids) == len(token_ids):
            return ids, True
    return tokenizer.encode(text), False


def ids_by_bytes(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Each token's bytes to its id; of two with the same bytes (a byte and a letter) the later: text uses that."""
    special = set(tokenizer.special.values())
    return {tokenizer.decode_bytes([token]): token for token in range(tokenizer.vocab_size) if token not in special}


def score(loaded: LoadedModel, prompt: Sequence[int], answer: Sequence[int], top: int = 10) -> list[dict[str, Any]]:
    """Each token of `answer` under the model: its log-probability (nats), its rank, and the `top` likeliest instead.

    The model alone is asked: no temperature, no truncation, no penalties.

    Raises:
        UserError: prompt and answer together are longer than the model's context.
    """
    ids = [*prompt, *answer]
    if not prompt or not answer:
        return []
    context = loaded.model.context_length
    if context is not None and len(ids) > context + 1:
        raise UserError(
            "the conversation is too long to look at its tokens", expected=f"at most {context}", got=str(len(ids))
        )
    first, rows = len(prompt) - 1, []
    top = min(top, MOST_TOP, loaded.spec.vocab_size)
    device, model = device_of(loaded.model), loaded.model
    with torch.inference_mode():
        tokens_1T = torch.tensor([ids[:-1]], device=device)
        stateful = isinstance(model, HiddenStateModel)
        x_1TX = (model.hidden_states(tokens_1T) if stateful else model(tokens_1T))[:, first:]
        for begin in range(0, len(answer), CHUNK):
            chunk_1CX = x_1TX[:, begin : begin + CHUNK]
            logits_TV = (model.unembed(chunk_1CX) if stateful else chunk_1CX)[0].float()
            logprobs_TV = logits_TV.log_softmax(dim=-1)
            written_T = torch.tensor(answer[begin : begin + CHUNK], device=device)
            own_T = logprobs_TV.gather(1, written_T[:, None])[:, 0]
            rank_T = (logprobs_TV > own_T[:, None]).sum(dim=-1) + 1
            best = logprobs_TV.topk(top, dim=-1)
            for at, token in enumerate(written_T.tolist()):
                likeliest = zip(best.indices[at].tolist(), best.values[at].tolist(), strict=True)
                rows.append(
                    {
                        **token_facts(loaded.tokenizer, token),
                        "logprob": float(own_T[at]),
                        "rank": int(rank_T[at]),
                        "top": [{**token_facts(loaded.tokenizer, id_), "logprob": lp} for id_, lp in likeliest],
                    }
                )
    return rows


def token_facts(tokenizer: Tokenizer, token: int) -> dict[str, Any]:
    """A token's id, its bytes in hexadecimal, and how it is shown: nothing in it is invisible."""
    names = {number: name for name, number in tokenizer.special.items()}
    if token in names:
        return {"id": token, "hex": "", "shown": names[token], "special": True}
    raw = tokenizer.decode_bytes([token]) if token < tokenizer.vocab_size else b""
    return {"id": token, "hex": raw.hex(), "shown": visible(raw) or "∅", "special": False}
