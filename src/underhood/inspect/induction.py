"""Induction scores of attention heads on repeated random tokens (Elhage et al. 2021; Olsson et al. 2022).

Random tokens are read twice. Nothing in them can be predicted but that the second half repeats the first. An induction
head looks from a token to the one after its earlier occurrence, and so copies what came next; the head that makes this
possible, in an earlier layer, looks at the token before. Scores are read off the second half only: in the first there
is nothing to look back to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_texts
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import equal_batches
from underhood.inspect.trace import attention_specs, trace
from underhood.ui import notebook


@dataclass(frozen=True, repr=False)
class InductionScores:
    """Where heads look in the second half of repeated random tokens, mean weights from 0 to 1.

    Attributes:
        layers: the A layers that attend.
        induction: to the token after the earlier occurrence, (A, H).
        previous: to the token before, (A, H).
        duplicate: to the earlier occurrence itself, (A, H).
        first_loss: cross-entropy in nats of the first half.
        second_loss: of the second half but its first token; the others can be known from the first half.
    """

    layers: tuple[int, ...]
    induction: Float[Tensor, "A H"]
    previous: Float[Tensor, "A H"]
    duplicate: Float[Tensor, "A H"]
    first_loss: float
    second_loss: float

    def strongest(self, score: str = "induction", count: int = 5) -> list[tuple[int, int, float]]:
        """The heads with the largest score, as (layer, head, score)."""
        scores_AH: Tensor = getattr(self, score)
        top = scores_AH.flatten().topk(min(count, scores_AH.numel()))
        width = scores_AH.shape[1]
        places = [(self.layers[index // width], index % width) for index in top.indices.tolist()]
        return [(layer, head, value) for (layer, head), value in zip(places, top.values.tolist(), strict=True)]

    def __repr__(self) -> str:
        [(layer, head, score)] = self.strongest(count=1)
        return (
            f"<induction scores of {self.induction.numel()} heads: largest {score:.2f} (layer {layer}, head {head}); "
            f"loss {self.first_loss:.2f} → {self.second_loss:.2f}>"
        )

    def _repr_html_(self) -> str:
        heads = [*map(str, range(self.induction.shape[1]))]
        names = [f"layer {layer}" for layer in self.layers]
        return notebook.framed(notebook.heat_table(names, heads, self.induction.tolist()))


@torch.no_grad()
def induction_scores(loaded: LoadedModel, *, length: int = 50, count: int = 4, seed: int = 0) -> InductionScores:
    """Scores of every head, and how much the repetition helps the model.

    Args:
        length: random tokens, which are then repeated.
        count: sequences over which scores are averaged.

    Raises:
        UserError: no layer attends, or the context is too short.
    """
    model = loaded.decoder
    layers = tuple(sorted(attention_specs(model)))
    if not layers:
        raise UserError("this model has no attention heads", expected="a model with attention")
    if len({attention_specs(model)[layer].heads for layer in layers}) > 1:
        raise UserError("the layers of this model have different numbers of heads", expected="the same in each")
    sequences = repeated_tokens(loaded, length, count, seed=seed)
    opening = sequences.shape[1] - 2 * length
    second = torch.arange(opening + length, opening + 2 * length)
    offsets = {"induction": length - 1, "previous": 1, "duplicate": length}
    sums = {name: torch.zeros(len(layers), attention_specs(model)[layers[0]].heads) for name in offsets}
    for ids_T in sequences:
        recorded = trace(loaded, ids_T.tolist(), [f"{kind}.{layer}" for layer in layers for kind in ("query", "key")])
        for row, layer in enumerate(layers):
            pattern_HTT = recorded.pattern(layer)
            for name, offset in offsets.items():
                sums[name][row] += pattern_HTT[:, second, second - offset].mean(dim=1)
    logits_BTV = model(sequences.to(device_of(model)))[:, :-1].float().cpu()
    loss_BT = F.cross_entropy(logits_BTV.transpose(1, 2), sequences[:, 1:], reduction="none")
    return InductionScores(
        layers=layers,
        first_loss=float(loss_BT[:, : opening + length - 1].mean()),
        second_loss=float(loss_BT[:, opening + length :].mean()),
        **{name: total / len(sequences) for name, total in sums.items()},
    )


def repeated_tokens(loaded: LoadedModel, length: int, count: int, *, seed: int = 0) -> Int[Tensor, "B T"]:
    """Sequences of random ordinary tokens, each followed by itself, opened as the model's texts are.

    Raises:
        UserError: they would not fit into the context.
    """
    opening, context = loaded.prompt_ids(""), loaded.decoder.context_length
    if length < 2 or len(opening) + 2 * length > context:
        raise UserError(
            "the repeated tokens do not fit into the context",
            expected=f"a length from 2 to {(context - len(opening)) // 2}",
            got=str(length),
        )
    special = set(loaded.tokenizer.special.values())
    ordinary = [id for id in range(loaded.tokenizer.vocab_size) if id not in special]
    ordinary = torch.tensor([id for id in ordinary if id < loaded.decoder.vocab_size])
    generator = torch.Generator().manual_seed(seed)
    half_BT = ordinary[torch.randint(len(ordinary), (count, length), generator=generator)]
    opening_BT = torch.tensor(opening, dtype=torch.long).expand(count, -1)
    return torch.cat([opening_BT, half_BT, half_BT], dim=1)


@torch.no_grad()
def in_context_score(
    loaded: LoadedModel, texts: Sequence[str], *, early: int = 50, late: int = 500, width: int = 10
) -> float:
    """In-context learning score: loss late in a text minus loss early in it, in nats; the lower, the more is learnt.

    Args:
        early, late: tokens around which the loss is averaged.
        width: how many of them on each occasion.

    Raises:
        UserError: no text has `late` tokens, or the context is shorter.

    Source: Olsson et al. 2022, "in-context learning score": the 500th token's loss minus the 50th's.
    """
    check_texts(texts)
    model = loaded.decoder
    needed = late + width
    if not width <= early < late or needed > model.context_length:
        raise UserError(
            f"the context of {model.context_length:,} tokens has no token {late}",
            expected=f"early and late from {width} to {model.context_length - width}",
        )
    encoded = [loaded.prompt_ids(text) for text in texts]
    windows = [ids[:needed] for ids in encoded if len(ids) >= needed]
    if not windows:
        raise UserError(f"no text has {needed} tokens", got=f"at most {max(map(len, encoded))}")
    losses = []
    for batch_BT in equal_batches(windows, device_of(model)):
        logits_BTV = model(batch_BT)[:, :-1].float()
        losses.append(F.cross_entropy(logits_BTV.transpose(1, 2), batch_BT[:, 1:], reduction="none").cpu())
    loss_T = torch.cat(losses).mean(dim=0)  # entry t is the loss of token t + 1
    return float(loss_T[late - 1 : late - 1 + width].mean() - loss_T[early - 1 : early - 1 + width].mean())
