"""Contrastive search: likely words that do not repeat what the text has already been about.

Greedy search runs in circles because the model's states come to resemble each other. Here each of the likeliest tokens
is tried, and one whose state is much like an earlier one's pays for that. It is deterministic, like greedy search.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch.nn.functional import normalize

from underhood.core.errors import UserError
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import Completion, check_prompts, device_of
from underhood.models.decoder import Decoder


@torch.inference_mode()
def contrastive_search(
    model: Decoder,
    prompt: Sequence[int],
    *,
    k: int = 4,
    alpha: float = 0.6,
    max_new_tokens: int = 128,
    stop_ids: Collection[int] = (),
) -> Completion:
    """Continues one prompt (Su et al. 2022, eq. 5).

    Of the `k` likeliest tokens v it takes the one with the greatest (1 − α) p(v) − α max cos(h(v), h(x)) over all
    earlier tokens x, prompt included; h is the normalised residual stream before the unembedding.

    Args:
        k: tokens tried at each step; each costs a row in the batch.
        alpha: 0 is greedy search; 1 looks at nothing but likeness.

    Raises:
        UserError: a prompt that is empty or longer than the context, or a value out of range.
    """
    check_prompts(model, [prompt], max_new_tokens)
    if not 1 <= k <= model.vocab_size:
        raise UserError("k is out of range", expected=f"a whole number from 1 to {model.vocab_size}", got=str(k))
    if not 0 <= alpha <= 1:
        raise UserError("alpha is out of range", expected="a number from 0 to 1", got=str(alpha))
    model.eval()
    device, stops, done = device_of(model), frozenset(stop_ids), Completion()
    # A token is read before it is taken, so there is room for one less than when sampling.
    room = max_new_tokens if model.context_length is None else min(max_new_tokens, model.context_length - len(prompt))
    if room < 1:
        return done
    cache = ContiguousCache.for_model(model, 1, len(prompt) + room)
    read_TD = model.hidden_states(torch.tensor([list(prompt)], device=device), cache=cache)[0]
    cache = cache.spread([0] * k)
    states_SD = torch.empty(len(prompt) + room, read_TD.shape[1], dtype=torch.float32, device=device)
    states_SD[: len(prompt)] = normalize(read_TD.float(), dim=-1)
    last_D = read_TD[-1]
    for length in range(len(prompt), len(prompt) + room):
        logprobs_V = model.unembed(last_D[None])[0].float().log_softmax(dim=-1)
        best_K = logprobs_V.topk(k)
        tried_KD = model.hidden_states(best_K.indices[:, None], cache=cache)[:, -1]
        directions_KD = normalize(tried_KD.float(), dim=-1)
        likeness_K = (directions_KD @ states_SD[:length].T).amax(dim=-1)
        taken = int(((1 - alpha) * best_K.values.exp() - alpha * likeness_K).argmax())
        token = int(best_K.indices[taken])
        if token in stops:
            done.finish, done.stop_id = "stop", token
            break
        done.ids.append(token)
        done.logprobs.append(float(best_K.values[taken]))
        cache.select([taken] * k)
        states_SD[length], last_D = directions_KD[taken], tried_KD[taken]
    return done
