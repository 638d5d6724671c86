"""The base class of language models that a spec builds."""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.core.protocols import AttendingCache, Cache
from underhood.core.state import StateSpec


class BuiltModel(nn.Module):
    """A module that answers `core.protocols.LanguageModel`, and knows the spec it was built from."""

    spec: Any  # a ModelSpec; each model knows its own

    sized_by_text = False
    """Whether it holds tables whose size the training text decides, so that the spec does not give all shapes."""

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores of the next token after each of T tokens; see `LanguageModel` for what positions mean."""
        model = cast(Any, self)  # one that has hidden states and an unembedding; others have a forward of their own
        return model.unembed(model.hidden_states(tokens, cache=cache, positions=positions))

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size

    @property
    def context_length(self) -> int | None:
        return self.spec.context_length

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """What each layer keeps between passes."""
        return self.spec.state_specs


def parameter_count(model: nn.Module) -> int:
    """Parameters, each shared one counted once; those that layers hold in few bits (`packed_parameters`) too."""
    packed = sum(getattr(module, "packed_parameters", 0) for module in model.modules())
    return packed + sum(parameter.numel() for parameter in model.parameters())
