"""Reward functions by name: a verifier, a function in the user's own Python file, or a reward model's folder."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from underhood.align.rewards import NEEDS_REFERENCE, REFERENCE, VERIFIERS, RewardFunction
from underhood.core.errors import UserError, nearest
from underhood.data.prompts import PromptRecord
from underhood.recipes.reward_tuning import load_reward_model


def choose_reward(name: str) -> RewardFunction:
    """The reward that a command names.

    Args:
        name: a verifier (``exact``, ``number``, ``contains``, ``finished``), ``FILE.py:FUNCTION``, or a folder.

    Raises:
        UserError: there is no such reward.
    """
    if name in VERIFIERS:
        return VERIFIERS[name]
    file, separator, function = name.rpartition(":")
    if separator and file.endswith(".py"):
        return own_function(Path(file), function)
    if Path(name).is_dir():
        return model_reward(Path(name))
    near = nearest(name, VERIFIERS)
    raise UserError(
        f"there is no reward {name!r}",
        expected=f"{', '.join(VERIFIERS)}, FILE.py:FUNCTION, or the folder of a reward model",
        fix=f"Did you mean {near}?" if near else None,
    )


def check_references(name: str, prompts: Sequence[PromptRecord]) -> None:
    """Raises a UserError, with the line, where a verifier lacks the right answer."""
    if name in NEEDS_REFERENCE:
        for prompt in prompts:
            if not isinstance(prompt.record.get(REFERENCE), (str, int, float)):
                raise UserError(
                    f"{prompt.where} has no {REFERENCE!r} for the reward {name} to compare with",
                    fix=f"Put the right answer into the field {REFERENCE!r}",
                )


def own_function(file: Path, name: str) -> RewardFunction:
    """A function of the user's file: ``def reward(answers) -> list[float]``, run as any Python code is.

    Raises:
        UserError: no such file or function, or the file fails when it is loaded.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    module_spec = importlib.util.spec_from_file_location(f"underhood_reward_{file.stem}", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    _guarded(file, lambda: module_spec.loader.exec_module(module))  # type: ignore[union-attr]
    function = getattr(module, name, None)
    if not callable(function):
        functions = [each for each in vars(module) if callable(getattr(module, each)) and not each.startswith("_")]
        raise UserError(f"{file} has no function {name!r}", got=", ".join(functions) or "no functions")
    return lambda answers: _guarded(file, lambda: function(answers))


def model_reward(folder: Path) -> RewardFunction:
    """The scores of a reward model, read once (see ``underhood reward``).

    Raises:
        UserError: the folder holds none.
    """
    return load_reward_model(folder).reward


def _guarded(file: Path, work: Callable[[], Any]) -> Any:
    """Runs the user's code; its failure is told with its line, not as a failure of ours."""
    try:
        return work()
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f"{file} line {lines[-1]}" if lines else str(file)
        raise UserError(f"the reward failed: {where}: {type(error).__name__}: {error}") from error
