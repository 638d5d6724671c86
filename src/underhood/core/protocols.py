"""Protocols between layers: language model, KV cache, tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from underhood.core.state import StateSpec


@runtime_checkable
class Cache(Protocol):
    """KV cache: a list of the states of a model's layers (see `core.state`). The caller owns it, never the model.

    A forward pass calls `extend` once with the new tokens' positions, then `update` once per layer. The cache decides
    how it stores; the result is always in order of arrival, so that column ``s`` of the returned keys has the
    position ``positions_BS[:, s]``.
    """

    @property
    def length(self) -> int:
        """How many tokens per row are stored (S before the next `extend`)."""
        ...

    @property
    def plain(self) -> bool:
        """True while every row is one unpadded document from its start, so that the causal mask suffices."""
        ...

    def extend(self, count: int, positions_BT: "Tensor | None") -> tuple["Tensor", "Tensor"]:
        """Makes room for `count` more tokens per row.

        Returns their positions (B, T) — those given, or each row's next ones when None — and the positions of
        everything attendable (B, S), the new tokens included.
        """
        ...

    def update(self, layer: int, *new: "Tensor") -> "tuple[Tensor, ...]":
        """Stores what one layer keeps of the new tokens (B, G, T, K); returns all of it, each (B, G, S, K)."""
        ...


class RecurrentCache(Cache, Protocol):
    """A cache that also keeps recurrent states, for layers that declare one."""

    def recurrent(self, layer: int) -> "tuple[Tensor, ...]":
        """The state that the last pass left; zeros at first."""
        ...

    def set_recurrent(self, layer: int, *state: "Tensor") -> None:
        """Replaces it."""
        ...


@runtime_checkable
class AttendingCache(Protocol):
    """Paged KV cache: it also computes attention, for passes whose one row holds the tokens of many sequences.

    Everything in a model but attention treats each token alone, so texts of any lengths can go through it side by side
    in a single row (1, T) without padding. Only the cache knows which keys belong to which text. A pass calls `extend`
    once and `attend` once per layer, in place of `Cache.update`.
    """

    @property
    def plain(self) -> bool: ...

    def extend(self, count: int, positions_BT: "Tensor | None") -> tuple["Tensor", "Tensor"]:
        """As `Cache.extend`; the second tensor means nothing here."""
        ...

    def attend(
        self,
        layer: int,
        q_BHTK: "Tensor",
        k_BGTK: "Tensor",
        v_BGTK: "Tensor",
        *,
        scale: float | None,
        window: int | None,
        softcap: float | None,
    ) -> "Tensor":
        """Stores one layer's new keys and values; returns what each query finds (B, H, T, K) in its own text.

        Args:
            scale: what scores are multiplied by; None means 1 / sqrt(K).
            window: tokens that a query sees, itself included; None means all before it.
            softcap: presses scores softly into ±cap, or None.
        """
        ...

    def recent(self, layer: int, x_BTD: "Tensor", count: int) -> "Tensor":
        """Stores one vector per new token; returns it after those of the `count` tokens before it.

        Returns:
            (B, T, count + 1, D), the oldest first; zeros before the beginning of a text.
        """
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Anything that gives next-token scores, from an n-gram table to a mixture of experts.

    ``model(tokens_BT, cache=None, positions=None) -> logits_BTV``: ``logits[b, t]`` scores the token after
    ``tokens[b, : t + 1]``. They are unnormalised natural-log scores; losses live elsewhere.

    Positions say more than order, and one rule covers packing, padding and caching:

    - they count 0, 1, 2 … within a document; a token whose position does not follow its left neighbour's starts a
      new document, and attention never crosses into it;
    - −1 marks padding: it is attended by nobody and its own output means nothing;
    - None means one document per row, going on after whatever `cache` holds.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def context_length(self) -> int | None:
        """The longest sequence the model was made for; None when it has no such limit."""
        ...

    def __call__(
        self, tokens_BT: "Tensor", *, cache: "Cache | AttendingCache | None" = None, positions: "Tensor | None" = None
    ) -> "Tensor": ...


@runtime_checkable
class HiddenStateModel(LanguageModel, Protocol):
    """A language model whose scores are a linear map of hidden states, which may be wanted for some tokens only."""

    def hidden_states(
        self,
        tokens: "Tensor",
        *,
        cache: "Cache | AttendingCache | None" = None,
        positions: "Tensor | None" = None,
        rows: "Tensor | slice | None" = None,
    ) -> "Tensor":
        """The hidden states (B, T, D), or those of the tokens `rows` of the T."""
        ...

    @property
    def unembed(self) -> "Callable[[Tensor], Tensor]":
        """Hidden states (…, D) to scores (…, V)."""
        ...


@runtime_checkable
class CountedModel(LanguageModel, Protocol):
    """A language model that is fitted by counting, in one pass over the text, and not by gradients."""

    def fit(self, documents: "Iterable[Any]") -> Any:
        """Counts documents of token ids; earlier counts are replaced."""
        ...


@runtime_checkable
class PartlyCountedModel(LanguageModel, Protocol):
    """A language model that counts its text before gradients train the rest of it."""

    def count_documents(self, documents: "Iterable[Any]") -> None:
        """Counts documents of token ids; earlier counts are replaced."""
        ...


@runtime_checkable
class ModelSpec(Protocol):
    """What a language model is made of: it builds the model, and planners and caches ask it what that will cost.

    The model that it builds has it as `spec`, and offers `state_specs` as well.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def context_length(self) -> int | None: ...

    @property
    def state_specs(self) -> "tuple[StateSpec, ...]":
        """What each layer keeps between passes: the shape of a cache."""
        ...

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations of a forward pass per token, at the full context."""
        ...

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        ...

    def build(self) -> Any:
        """The model with weights yet to be filled."""
        ...

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> Any:
        """A fresh model to train, a pure function of the spec and the seed.

        Args:
            embed_std: standard deviation of the embeddings, where there are any.
        """
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. `encode` never produces a special token: text that spells one stays text."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included; every id is below it."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Special tokens by name, e.g. ``{"<|endoftext|>": 4093}``. Only code puts them into a sequence."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens spelled out; bytes that are not UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The exact bytes of the ids: what a stream needs, and what round trips."""
        ...
