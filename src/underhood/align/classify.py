"""Classification with a language model: a new head on its hidden states, or its own next-token scores.

Two ways, both reading the text once:

- ``head``: a linear layer from a hidden state to the classes (Radford et al. 2018, section 3.3): that of the last
  token, which has seen the whole text, or the mean over all tokens.
- ``token``: the text is followed by a question, and the answer is read from the scores of one token per class at the
  last position. No new weights; what the model knows of the labels' words helps it from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.batch import IGNORE, Batch, shard_rows
from underhood.data.labelled import BETWEEN
from underhood.models.decoder import Decoder

QUESTION = "\nlabel:"
"""What follows the text where the answer is a token."""

DELIMITER = " $ "
"""Between the two texts of a pair, as in GPT-1's inputs (Radford et al. 2018, section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """How a text becomes a class.

    Attributes:
        labels: the classes' names.
        how: ``head`` or ``token``.
        pool: which hidden state the head reads: the ``last`` token's or the ``mean`` of all.
        label_ids: the token of each class (`token` only).
        pairs: whether each input is two texts (entailment, paraphrase): they are read with `DELIMITER` between them.
    """

    labels: tuple[str, ...]
    how: Literal["head", "token"] = "head"
    pool: Literal["last", "mean"] = "last"
    label_ids: tuple[int, ...] = ()
    pairs: bool = False

    def build(self, model: Decoder) -> "Classifier":
        return Classifier(model, self)


class Classifier(nn.Module):
    """A decoder that gives scores of classes instead of tokens.

    Attributes:
        model: the decoder; nothing in it is changed, so surgery on it (LoRA) works as ever.
        head: (classes, width), zero at first, with `how="head"`; else None.
    """

    def __init__(self, model: Decoder, spec: ClassifierSpec):
        super().__init__()
        if spec.how == "token" and len(spec.label_ids) != len(spec.labels):
            raise ValueError(f"{len(spec.labels)} labels, but {len(spec.label_ids)} tokens for them")
        self.spec, self.model = spec, model
        self.head = nn.Linear(model.spec.d_model, len(spec.labels)) if spec.how == "head" else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            self.head.to(next(model.parameters()).device)

    def forward(self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Scores of the classes; positions are −1 where a row is padded."""
        return self.scores(self.model.hidden_states(tokens, positions=positions), positions)

    def scores(self, hidden_BTD: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B C"]:
        """Scores of the classes from the hidden states of the texts."""
        if self.head is not None and self.spec.pool == "mean":
            real_BT1 = (positions >= 0)[..., None].to(hidden_BTD.dtype)
            return self.head((hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1).clamp(min=1))
        last_B = positions.argmax(dim=1)
        last_BD = hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
        if self.head is not None:
            return self.head(last_BD)
        return self.model.unembed(last_BD)[:, list(self.spec.label_ids)]


def label_tokens(tokenizer: Tokenizer, labels: Sequence[str]) -> tuple[int, ...]:
    """One token for each label: the first of its name (after a space), or of its number where names begin alike.

    Raises:
        UserError: the tokenizer has too few tokens to tell that many labels apart.
    """
    for words in (labels, [str(number) for number in range(len(labels))]):
        ids = [tokenizer.encode(f" {word}")[:1] for word in words]
        if all(ids) and len({word_ids[0] for word_ids in ids}) == len(labels):
            return tuple(word_ids[0] for word_ids in ids)
        ids = [tokenizer.encode(word)[:1] for word in words]
        if all(ids) and len({word_ids[0] for word_ids in ids}) == len(labels):
            return tuple(word_ids[0] for word_ids in ids)
    raise UserError(f"no token for each of {len(labels)} labels", fix="Leave out --how token: a new layer needs none")


def encode_texts(
    tokenizer: Tokenizer,
    spec: ClassifierSpec,
    texts: Sequence[str],
    context_length: int,
    *,
    opening: Sequence[int] = (),
) -> list[list[int]]:
    """Each text as the model reads it: after the ids that open a text, cut to the context, with the question if any.

    A pair (two texts with `data.labelled.BETWEEN` between them) is cut where it is longer: no text loses a token
    before the other has been cut to its length.

    Raises:
        UserError: no room for a text in the context, a text without tokens, or a pair that lacks one of its texts.
    """
    closing = tokenizer.encode(QUESTION) if spec.how == "token" else []
    delimiter = tokenizer.encode(DELIMITER) if spec.pairs else []
    room = context_length - len(opening) - len(delimiter) - len(closing)
    if room < 1 + spec.pairs:
        raise UserError("the model's context is too short to classify anything", got=f"{context_length} tokens")
    if spec.pairs:
        firsts, seconds = zip(*(_both(text) for text in texts), strict=True)
        sides = zip(tokenizer.encode_batch(list(firsts)), tokenizer.encode_batch(list(seconds)), strict=True)
        rows = [[*opening, *_cut(a, b, room, delimiter), *closing] for a, b in sides]
    else:
        rows = [[*opening, *ids[:room], *closing] for ids in tokenizer.encode_batch(list(texts))]
    if any(not row for row in rows):
        raise UserError("an empty text can't be classified")
    return rows


def _both(text: str) -> tuple[str, str]:
    """The two texts of a pair."""
    first, _, second = text.partition(BETWEEN)
    if not first.strip() or not second.strip():
        raise UserError(
            "this classifier compares two texts", expected="the two with a tab between them", got=repr(text)
        )
    return first.strip(), second.strip()


def _cut(first: Sequence[int], second: Sequence[int], room: int, delimiter: Sequence[int]) -> list[int]:
    """Both texts around the delimiter, the longer one cut until they have room."""
    of_second = min(len(second), max(room // 2, room - len(first)))
    return [*first[: room - of_second], *delimiter, *second[:of_second]]


def padded_rows(sequences: Sequence[Sequence[int]]) -> Batch:
    """Rows of different lengths as one batch without targets, padded on the right."""
    shape = (len(sequences), max(map(len, sequences)))
    tokens_BT, positions_BT = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for b, row in enumerate(sequences):
        tokens_BT[b, : len(row)], positions_BT[b, : len(row)] = row, np.arange(len(row))
    return Batch(torch.from_numpy(tokens_BT), torch.full(shape, IGNORE), torch.from_numpy(positions_BT))


@dataclass(frozen=True)
class LabelledBatch:
    """Texts, padded on the right, and the class of each."""

    texts: Batch
    classes_B: Int[Tensor, "B"]

    @property
    def target_count(self) -> int:
        """Texts: the loss is a sum over them."""
        return len(self.classes_B)

    @property
    def token_count(self) -> int:
        return self.texts.token_count

    def to(self, device: torch.device | str) -> "LabelledBatch":
        return LabelledBatch(self.texts.to(device), self.classes_B.to(device))

    def shard(self, rank: int, world_size: int) -> "LabelledBatch":
        """The texts that process `rank` of `world_size` reads."""
        mine = shard_rows(len(self.classes_B), rank, world_size)
        return LabelledBatch(self.texts.shard(rank, world_size), self.classes_B[mine])


class LabelledBatches:
    """Batches of labelled texts by step number: a pure function of the step; each epoch deals them out anew."""

    def __init__(self, rows: Sequence[Sequence[int]], classes: Sequence[int], *, batch_size: int, seed: int):
        self.rows, self.classes_N, self.batch_size, self.seed = rows, torch.tensor(list(classes)), batch_size, seed

    def __call__(self, step: int) -> LabelledBatch:
        count, first = len(self.rows), step * self.batch_size
        chosen = [
            int(np.random.default_rng([self.seed, n // count]).permutation(count)[n % count])
            for n in range(first, first + self.batch_size)
        ]
        return LabelledBatch(padded_rows([self.rows[number] for number in chosen]), self.classes_N[chosen])


@dataclass(frozen=True, kw_only=True)
class ClassificationLoss:
    """`LossFn` of classification: the summed cross-entropy of the classes. Logs `accuracy` on the batch.

    Attributes:
        lm_weight: λ of GPT-1's auxiliary objective: each text adds λ times its mean next-token loss, so that the model
            goes on predicting the text that it labels (Radford et al. 2018, equation 5, with λ = 0.5).
    """

    lm_weight: float = 0.0

    def __call__(self, classifier: Classifier, batch: LabelledBatch) -> tuple[Tensor, dict[str, float]]:
        tokens, positions = batch.texts.tokens, batch.texts.positions
        assert positions is not None
        if not self.lm_weight:
            scores_BC = classifier(tokens, positions).float()
            return F.cross_entropy(scores_BC, batch.classes_B, reduction="sum"), self._accuracy(scores_BC, batch)
        hidden_BTD = classifier.model.hidden_states(tokens, positions=positions)
        scores_BC = classifier.scores(hidden_BTD, positions).float()
        lm_loss = self._next_tokens(classifier.model.unembed(hidden_BTD[:, :-1]).float(), tokens, positions)
        loss = F.cross_entropy(scores_BC, batch.classes_B, reduction="sum") + self.lm_weight * lm_loss
        return loss, self._accuracy(scores_BC, batch) | {"lm_loss": float(lm_loss.detach())}

    @staticmethod
    def _accuracy(scores_BC: Tensor, batch: LabelledBatch) -> dict[str, float]:
        return {"accuracy": int((scores_BC.detach().argmax(-1) == batch.classes_B).sum())}

    @staticmethod
    def _next_tokens(logits_BTV: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """The sum over texts of their mean next-token loss in nats; a text of a single token adds nothing."""
        real_BT = positions[:, 1:] >= 0
        targets_BT = tokens[:, 1:].masked_fill(~real_BT, IGNORE)
        nats_BT = F.cross_entropy(logits_BTV.mT, targets_BT, ignore_index=IGNORE, reduction="none")
        return (nats_BT.sum(1) / real_BT.sum(1).clamp(min=1)).sum()


@torch.no_grad()
def class_probabilities(
    classifier: Classifier,
    batch_size: Sequence[Sequence[int]],
    *,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "N C"]:
    """Probabilities of the classes for each row, in the given order, on the CPU.

    Args:
        progress: told the rows done and all there are.
    """
    classifier.eval()
    device = next(classifier.parameters()).device
    order = sorted(range(len(batch_size)), key=lambda number: len(batch_size[number]))
    found_NC = torch.empty(len(batch_size), len(classifier.spec.labels))
    for first in range(0, len(order), batch):
        if progress is not None:
            progress(first, len(order))
        numbers = order[first : first + batch]
        read = padded_rows([batch_size[number] for number in numbers]).to(device)
        assert read.positions is not None
        found_NC[numbers] = classifier(read.tokens, read.positions).float().softmax(-1).cpu()
    if progress is not None:
        progress(len(order), len(order))
    return found_NC
