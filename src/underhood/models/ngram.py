"""The n-gram model with modified Kneser–Ney smoothing: the strongest language model before neural ones.

Counting alone gives zero to whatever was never seen. Kneser–Ney takes a little from every count and hands it to the
shorter history, and asks of the shorter history a better question than "how often": *after how many different tokens*
has this one been seen (Kneser & Ney 1995)? The modified form takes three different amounts, from counts of one, two and
more, estimated from the counts themselves (Chen & Goodman 1998, section 3, equations for D1, D2, D3+).

For a history h and its shortening h' (the oldest token dropped)::

    p(w | h) = (c(h w) − D(c(h w))) / c(h ·)  +  γ(h) p(w | h')
    γ(h)     = (D1 N1(h ·) + D2 N2(h ·) + D3 N3+(h ·)) / c(h ·)

c is the plain count for the longest n-grams and for those that open a document (nothing precedes them); for
all others it is the number of different tokens seen to the left. The recursion ends in 1 / V. Every token of the
vocabulary has a probability above zero and they sum to one.

Counts live in sorted arrays, one per order. An n-gram's key is (row of its first n − 1 tokens) × (V + 1) + (last
token): exact, never hashed, and all continuations of one history lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.protocols import AttendingCache, Cache
from underhood.core.state import StateSpec
from underhood.models.base import BuiltModel
from underhood.nn.forward_context import ForwardContext

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Used for an order whose counts of counts cannot give valid estimates (tiny texts); KenLM's choice too."""

ROWS_AT_ONCE = 512
"""Full distributions worked out together: 512 × V float64 stays in tens of megabytes."""


@dataclass(frozen=True, kw_only=True)
class NGramSpec:
    """An interpolated Kneser–Ney model over token ids.

    Attributes:
        vocab_size: V, special tokens included.
        order: n, the longest n-gram counted: the model sees n − 1 tokens back.
        single_discount: one discount n1 / (n1 + 2 n2) per order (the method of 1995) in place of three.
        continuation: count left neighbours in the lower orders. False leaves plain counts everywhere, which is
            absolute discounting (Ney et al. 1994): what Kneser–Ney improved on, kept to measure its worth.
        discounts: fixed discounts, one per order from 1 upwards, in place of estimates.
    """

    vocab_size: int
    order: int = 5
    single_discount: bool = False
    continuation: bool = True
    discounts: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.vocab_size < 1 or self.order < 1:
            raise ValueError(f"vocab_size and order must be at least 1, got {self.vocab_size} and {self.order}")
        if self.discounts is not None and (
            len(self.discounts) != self.order or not all(0 <= discount <= 1 for discount in self.discounts)
        ):
            raise ValueError(f"discounts must be {self.order} numbers from 0 to 1, got {self.discounts}")

    @property
    def context_length(self) -> None:
        """No limit: tokens more than order − 1 back are not seen."""
        return

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """The ids of the last tokens."""
        return (StateSpec(vectors=((1, 1),), window=self.order, integers=True),)

    @property
    def flops_per_token(self) -> float:
        """None to speak of: it looks up."""
        return 0.0

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        return {"Order": f"{self.order} tokens", "Vocabulary": f"{self.vocab_size:,} tokens"}

    def initialize(self, *, seed: int = 0, embed_std: float = 0.0) -> "NGram":
        """The model before it has read anything; nothing in it is random."""
        return self.build()

    def build(self) -> "NGram":
        """The model before it has read anything: uniform over the vocabulary (see `NGram.fit`)."""
        return NGram(self)


class NGram(BuiltModel):
    """A smoothed table of n-grams; answers `core.protocols.LanguageModel`.

    The logits are natural-log probabilities. The counts are buffers, so `state_dict` saves the whole model; it has no
    parameters, and it computes on the CPU whatever device the tokens are on.
    """

    sized_by_text = True

    def __init__(self, spec: NGramSpec):
        super().__init__()
        self.spec = spec
        self._opening = spec.vocab_size  # precedes the first token of a document; never predicted
        counts = [np.zeros(spec.vocab_size + 1, dtype=np.int64)] + [np.zeros(0, dtype=np.int64)] * (spec.order - 1)
        keys = [np.arange(spec.vocab_size + 1)] + [np.zeros(0, dtype=np.int64)] * (spec.order - 1)
        for k in range(1, spec.order + 1):
            self.register_buffer(f"keys_{k}", torch.empty(0))
            self.register_buffer(f"counts_{k}", torch.empty(0))
        self._set(keys, counts)
        self.register_load_state_dict_pre_hook(_resize_buffers)
        self.register_load_state_dict_post_hook(_rebuild)

    @property
    def ngrams(self) -> tuple[int, ...]:
        """How many different n-grams were counted, by order from 1 upwards."""
        return (int((self._tables[0].counts > 0).sum()), *(len(table.keys) for table in self._tables[1:]))

    @property
    def discounts(self) -> tuple[tuple[float, float, float], ...]:
        """D1, D2, D3+ of each order from 1 upwards."""
        return tuple((float(d[1]), float(d[2]), float(d[3])) for d in (table.discount for table in self._tables))

    def fit(self, documents: Iterable[Sequence[int] | Ints]) -> "NGram":
        """Counts the documents (token ids; end-of-text tokens count like any other). Replaces earlier counts.

        Raises:
            UserError: an id outside the vocabulary.
        """
        tokens_N, document_N = self._flatten(documents)
        span = self.spec.vocab_size + 1
        ids_N = tokens_N  # row, in the table of order k, of the k-gram that starts here; −1 where none fits
        all_ids, keys, raw = [ids_N], [np.arange(span)], [np.bincount(tokens_N, minlength=span)]
        for k in range(2, self.spec.order + 1):
            starts = np.flatnonzero(_fits(document_N, k))
            table, inverse, count = np.unique(
                ids_N[starts] * span + tokens_N[starts + k - 1], return_inverse=True, return_counts=True
            )
            ids_N = np.full(len(tokens_N), -1, dtype=np.int64)
            ids_N[starts] = inverse
            all_ids.append(ids_N)
            keys.append(table)
            raw.append(count)
        self._set(keys, self._adjusted(tokens_N, all_ids, raw))
        return self

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Log probabilities of the next token after each of T tokens; see `LanguageModel` for what positions mean."""
        rows, count = tokens.shape
        histories = self._read(tokens, cache, positions)
        logits_NV = torch.empty(rows * count, self.vocab_size)
        for start in range(0, rows * count, ROWS_AT_ONCE):
            piece = [rows_N[start : start + ROWS_AT_ONCE] for rows_N in histories]
            logits_NV[start : start + ROWS_AT_ONCE] = torch.from_numpy(_log(self._distributions(piece)))
        return logits_NV.view(rows, count, self.vocab_size).to(tokens.device)

    def target_log_probs(
        self,
        tokens: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """log p of one target per position, without the distribution around it; 0 where the target is negative.

        The same numbers as gathering from `forward`, in float64, at about a thousandth of the cost.
        """
        histories = self._read(tokens, None, positions)
        words_N = targets.cpu().numpy().reshape(-1)
        scored = words_N >= 0
        result_N = np.zeros(len(words_N))
        result_N[scored] = _log(self._probabilities([rows_N[scored] for rows_N in histories], words_N[scored]))
        return torch.from_numpy(result_N).view(targets.shape).to(tokens.device)

    def log_probs(self, documents: Iterable[Sequence[int] | Ints]) -> list[Floats]:
        """log p of every token of each document, the first one (from the document's opening) included."""
        tokens_N, document_N = self._flatten(documents)
        predicting = np.flatnonzero(document_N[:-1] == document_N[1:])
        histories = [rows_N[predicting] for rows_N in self._histories(tokens_N, document_N)]
        logs_N = _log(self._probabilities(histories, tokens_N[predicting + 1]))
        if not len(tokens_N):
            return []
        return np.split(logs_N, np.cumsum(np.bincount(document_N) - 1)[:-1])

    def _set(self, keys: list[Ints], counts: list[Ints]) -> None:
        self._tables: list[_Table] = []
        for k, (keys_N, counts_N) in enumerate(zip(keys, counts, strict=True), start=1):
            setattr(self, f"keys_{k}", torch.from_numpy(keys_N))
            setattr(self, f"counts_{k}", torch.from_numpy(counts_N))
            histories = len(keys[k - 2]) if k > 1 else 1
            self._tables.append(
                _Table(keys_N, counts_N, self.spec.vocab_size + 1, histories, self._discount(k, counts_N))
            )

    def _discount(self, k: int, counts_N: Ints) -> Floats:
        """What is taken from a count of 0, 1, 2 and 3 or more in order k."""
        if self.spec.discounts is not None:
            return np.array([0.0] + [self.spec.discounts[k - 1]] * 3)
        n1, n2, n3, n4 = (int(np.count_nonzero(counts_N == c)) for c in (1, 2, 3, 4))
        if self.spec.single_discount:
            return np.array([0.0] + [n1 / (n1 + 2 * n2) if n1 else FALLBACK_DISCOUNTS[0]] * 3)
        if not (n1 and n2 and n3 and n4):
            return np.array([0.0, *FALLBACK_DISCOUNTS])
        y = n1 / (n1 + 2 * n2)
        estimates = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        valid = all(0 <= estimate <= count for count, estimate in enumerate(estimates, start=1))
        return np.array([0.0, *(estimates if valid else FALLBACK_DISCOUNTS)])

    def _flatten(self, documents: Iterable[Sequence[int] | Ints]) -> tuple[Ints, Ints]:
        """All tokens in one row, each document after its opening, and the number of the document each belongs to."""
        parts: list[Ints] = []
        for number, document in enumerate(documents):
            part_N = np.asarray(document, dtype=np.int64).reshape(-1)
            if part_N.size and (part_N.min() < 0 or part_N.max() >= self.vocab_size):
                bad = part_N[(part_N < 0) | (part_N >= self.vocab_size)][0]
                raise UserError(
                    f"document {number} holds a token id outside the vocabulary",
                    expected=f"0 to {self.vocab_size - 1}",
                    got=str(bad),
                )
            parts += [np.array([self._opening]), part_N]
        lengths = [len(part_N) + 1 for part_N in parts[1::2]]
        tokens_N = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return tokens_N, np.repeat(np.arange(len(lengths)), lengths)

    def _adjusted(self, tokens_N: Ints, ids: list[Ints], raw: list[Ints]) -> list[Ints]:
        """The counts that the equations call c: left neighbours below the top order, plain counts at the top."""
        counts = [counts_N.copy() for counts_N in raw]
        if self.spec.continuation:
            for k in range(1, self.spec.order):
                shorter_N, longer_N = ids[k - 1], ids[k]
                starts = np.flatnonzero(longer_N >= 0)
                # One position of each distinct (k+1)-gram; its last k tokens start one position further on.
                start_of = np.zeros(len(raw[k]), dtype=np.int64)
                start_of[longer_N[starts]] = starts
                counts[k - 1] = np.bincount(shorter_N[start_of + 1], minlength=len(raw[k - 1]))
                opening = shorter_N[(tokens_N == self._opening) & (shorter_N >= 0)]
                counts[k - 1][opening] = raw[k - 1][opening]
        counts[0][self._opening] = 0
        return counts

    def _histories(self, tokens_N: Ints, document_N: Ints) -> list[Ints]:
        """The history that ends at each token, for each order.

        For order k it is the table row of the last k − 1 tokens (row 0 of nothing for k = 1), or −1 where they were
        never seen or the document is shorter.
        """
        starting_N = tokens_N
        histories = [np.zeros(len(tokens_N), dtype=np.int64), tokens_N][: self.spec.order]
        for k in range(2, self.spec.order):
            starts = np.flatnonzero(_fits(document_N, k) & (starting_N >= 0))
            ids_N = np.full(len(tokens_N), -1, dtype=np.int64)
            ids_N[starts] = self._tables[k - 1].find(starting_N[starts], tokens_N[starts + k - 1])
            ending_N = np.full(len(tokens_N), -1, dtype=np.int64)
            ending_N[k - 1 :] = ids_N[: max(0, len(tokens_N) - k + 1)]
            histories.append(ending_N)
            starting_N = ids_N
        return histories

    def _read(self, tokens: Tensor, cache: Cache | AttendingCache | None, positions: Tensor | None) -> list[Ints]:
        """The histories (see `_histories`) that end at each of the B × T new tokens."""
        ctx = ForwardContext(tokens, positions, cache)
        if not ctx.cached:
            positions_BS = np.broadcast_to(ctx.positions_BS.cpu().numpy(), tokens.shape)
            return self._read_whole(tokens.cpu().numpy(), positions_BS, tokens.shape[1])
        # Each token with those before it, as a short text of its own; ids are kept with 1 added, 0 means none.
        recent_BTC = ctx.recent(0, tokens[..., None] + 1, self.spec.order - 1)[..., 0]
        back_C = torch.arange(self.spec.order - 1, -1, -1, device=tokens.device)
        positions_BTC = (ctx.positions_BT[..., None] - back_C).expand(recent_BTC.shape)
        positions_BTC = positions_BTC.masked_fill(recent_BTC == 0, -1)
        recent_NC, positions_NC = ((x.flatten(0, 1).cpu().numpy()) for x in (recent_BTC - 1, positions_BTC))
        return self._read_whole(recent_NC, positions_NC, 1)

    def _read_whole(self, tokens_BS: Ints, positions_BS: Ints, count: int) -> list[Ints]:
        """The histories that end at each row's `count` last tokens."""
        starts_BS = np.ones(tokens_BS.shape, dtype=bool)
        starts_BS[:, 1:] = positions_BS[:, 1:] != positions_BS[:, :-1] + 1
        # A document that begins in sight gets its opening; one cut off on the left has a shorter history.
        document_N = (starts_BS | (positions_BS <= 0)).reshape(-1).cumsum()
        opens_N = (positions_BS == 0).reshape(-1)
        place_N = np.arange(tokens_BS.size) + opens_N.cumsum()
        flat_N = np.full(tokens_BS.size + int(opens_N.sum()), self._opening)
        flat_document_N = np.zeros(len(flat_N), dtype=np.int64)
        flat_N[place_N] = np.where(positions_BS < 0, 0, tokens_BS).reshape(-1)
        flat_document_N[place_N] = document_N
        flat_document_N[place_N[opens_N] - 1] = document_N[opens_N]
        new_N = place_N.reshape(tokens_BS.shape)[:, -count:].reshape(-1)
        return [rows_N[new_N] for rows_N in self._histories(flat_N, flat_document_N)]

    def _probabilities(self, histories: list[Ints], words_N: Ints) -> Floats:
        """p of one token after each history."""
        p_N = np.full(len(words_N), 1 / self.vocab_size)
        for table, history_N in zip(self._tables, histories, strict=True):
            at = np.flatnonzero(history_N >= 0)
            row = table.find(history_N[at], words_N[at])
            p_N[at] *= table.gamma[history_N[at]]
            p_N[at[row >= 0]] += table.gain[row[row >= 0]]
        return p_N

    def _distributions(self, histories: list[Ints]) -> Floats:
        """p of every token after each history, (N, V)."""
        unigram = self._tables[0]
        base_V = (unigram.gain + unigram.gamma[0] / self.vocab_size)[: self.vocab_size]
        p_NV = np.repeat(base_V[None], len(histories[0]), axis=0)
        for table, history_N in zip(self._tables[1:], histories[1:], strict=True):
            at = np.flatnonzero(history_N >= 0)
            p_NV[at] *= table.gamma[history_N[at], None]
            rows, words, which = table.continuations(history_N[at])
            p_NV[at[which], words] += table.gain[rows]
        return p_NV


class _Table:
    """The n-grams of one order, sorted by key, and what the recursion needs of them.

    Attributes:
        keys: (row of the first n − 1 tokens in the shorter table) × span + last token, ascending.
        counts: c of each n-gram.
        gain: (c − D(c)) / c(h ·) of each n-gram.
        gamma: γ(h) of each history; 1 for one that nothing followed, so that the shorter history decides alone.
        first: histories + 1 row numbers; the continuations of h are the rows first[h] to first[h + 1].
        discount: D of a count of 0, 1, 2 and 3 or more.
    """

    def __init__(self, keys: Ints, counts: Ints, span: int, histories: int, discount: Floats):
        assert histories < (1 << 62) // span, "keys would overflow 64 bits"
        self.keys, self.counts, self.span, self.discount = keys, counts, span, discount
        history = keys // span
        taken = discount[np.minimum(counts, 3)]
        total_H = np.bincount(history, weights=counts, minlength=histories)
        left_H = np.bincount(history, weights=taken, minlength=histories)
        safe_H = np.maximum(total_H, 1)
        self.gain: Floats = (counts - taken) / safe_H[history]
        self.gamma: Floats = np.where(total_H > 0, left_H / safe_H, 1.0)
        self.first: Ints = np.searchsorted(keys, np.arange(histories + 1) * span)

    def find(self, history: Ints, word: Ints) -> Ints:
        """The rows of n-grams; −1 for those never seen."""
        if not len(self.keys):
            return np.full(len(history), -1, dtype=np.int64)
        wanted = history * self.span + word
        row = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[row] == wanted, row, -1)

    def continuations(self, history: Ints) -> tuple[Ints, Ints, Ints]:
        """Rows and last tokens of all n-grams that begin with the histories, and which history each belongs to."""
        first = self.first[history]
        lengths = self.first[history + 1] - first
        rows = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        return rows, self.keys[rows] % self.span, np.repeat(np.arange(len(history)), lengths)


def _fits(document_N: Ints, k: int) -> NDArray[np.bool_]:
    """Where a k-gram can start without leaving its document."""
    fits_N = np.zeros(len(document_N), dtype=bool)
    room = max(0, len(document_N) - k + 1)
    fits_N[:room] = document_N[len(document_N) - room :] == document_N[:room]
    return fits_N


def _log(p: Floats) -> Floats:
    """log p; minus infinity without complaint where fixed discounts of zero leave nothing for the unseen."""
    with np.errstate(divide="ignore"):
        return np.log(p)


def _resize_buffers(module: NGram, state_dict: dict[str, Any], prefix: str, *_unused: Any) -> None:
    """Tables have the size that the text gave them, so the saved shape is the right one."""
    for name, _ in list(module.named_buffers(recurse=False)):
        if prefix + name in state_dict:
            setattr(module, name, torch.empty_like(state_dict[prefix + name]))


def _rebuild(module: NGram, _: Any) -> None:
    orders = range(1, module.spec.order + 1)
    module._set(*([getattr(module, f"{kind}_{k}").cpu().numpy() for k in orders] for kind in ("keys", "counts")))
