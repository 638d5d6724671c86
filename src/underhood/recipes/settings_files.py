"""Settings files of runs that hold one model made from another by one training, and the class of each."""

from __future__ import annotations

from collections.abc import Mapping

from underhood.recipes.finetune_spec import SETTINGS_FILES, ClassifySpec, FinetuneSpec
from underhood.recipes.policy_settings import GRPO_FILE, PPO_FILE, GRPOSettings, PPOSettings

TUNED_SETTINGS_FILES: Mapping[str, type[FinetuneSpec | ClassifySpec | GRPOSettings | PPOSettings]] = {
    **SETTINGS_FILES,
    GRPO_FILE: GRPOSettings,
    PPO_FILE: PPOSettings,
}
"""The file of a run that holds such settings, and their class."""
