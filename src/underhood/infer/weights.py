"""New weights for a model that is being served: what fits, and what does not."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.cache import states_of


def load_weights(model: LanguageModel, state: Mapping[str, Tensor]) -> None:
    """Copies a state dict into a model.

    Raises:
        UserError: names or shapes differ, as those of a fused or quantised model do; nothing has changed then.
    """
    own = dict(model.state_dict()) if isinstance(model, nn.Module) else {}
    differing = [name for name in {*own, *state} if name not in own or name not in state]
    differing += [name for name in own if name in state and own[name].shape != state[name].shape]
    if differing or not own:
        raise UserError(
            "the weights don't fit the engine's model",
            expected=f"a state dict with its {len(own)} tensors",
            got=f"other tensors, such as {min(differing)}" if differing else "a model without weights",
            fix="Give update_weights a model instead",
        )
    assert isinstance(model, nn.Module)
    model.load_state_dict(dict(state))


def check_same_shape(model: LanguageModel, other: LanguageModel) -> None:
    """Raises a `UserError` where one model cannot take another's place in an engine."""
    shapes = [(m.vocab_size, m.context_length, states_of(m)) for m in (model, other)]
    if shapes[0] != shapes[1]:
        raise UserError(
            "the new model can't take the place of the engine's",
            expected=f"vocabulary {model.vocab_size}, context {model.context_length}, the same states",
            got=f"vocabulary {other.vocab_size}, context {other.context_length}",
            fix="Make a new engine for it",
        )
