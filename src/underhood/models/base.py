"""The base class of language models that a spec builds."""

from __future__ import annotations

from typing import Any

from torch import nn

from underhood.core.state import StateSpec


class BuiltModel(nn.Module):
    """A module that answers `core.protocols.LanguageModel`, and knows the spec it was built from."""

    spec: Any  # a ModelSpec; each model knows its own

    sized_by_text = False
    """Whether it holds tables whose size the training text decides, so that the spec does not give all shapes."""

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
