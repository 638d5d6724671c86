"""Run of ``underhood finetune`` or ``underhood classify``, opened to be read: its settings, results and curves.

Such a run has no stages: it holds one model, made from another by one training, and the settings of that training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underhood.core.config import from_json
from underhood.core.errors import UserError
from underhood.core.toml import read_toml
from underhood.infer.stages import stages_of
from underhood.recipes.finetune_spec import ClassifySpec, FinetuneSpec
from underhood.recipes.policy_settings import GRPOSettings, PPOSettings
from underhood.recipes.published_run import is_finetuned
from underhood.recipes.settings_files import TUNED_SETTINGS_FILES
from underhood.ui import notebook

if TYPE_CHECKING:
    from underhood.recipes.training_curves import TrainingCurves


@dataclass(frozen=True, repr=False)
class FinetunedRun:
    """A folder that ``underhood finetune`` or ``underhood classify`` made.

    Attributes:
        spec: the settings of the training.
    """

    path: Path
    spec: FinetuneSpec | ClassifySpec | GRPOSettings | PPOSettings

    @classmethod
    def open(cls, path: Path) -> FinetunedRun:
        """Reads the settings of such a run.

        Raises:
            UserError: it is not one, or its settings are damaged.
        """
        if not is_finetuned(path):
            raise UserError(f"{path} was not made by underhood finetune or classify")
        file, kind = next((path / name, kind) for name, kind in TUNED_SETTINGS_FILES.items() if (path / name).exists())
        return cls(path, from_json(kind, read_toml(file), where=str(file)))

    @property
    def models(self) -> list[str]:
        """The names of the models that have a checkpoint: one, or none before the training has ended."""
        return stages_of(self.path)

    @property
    def results(self) -> dict[str, Any]:
        """What was measured before and after the training (``results.json``); empty before it has ended.

        Raises:
            UserError: the file is damaged.
        """
        file = self.path / "results.json"
        if not file.exists():
            return {}
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} is damaged: {error}") from error

    def curves(self) -> TrainingCurves:
        """What the training logged: ``run.curves()["sft"].loss`` is an array; shows as charts.

        Raises:
            UserError: the log is damaged.
        """
        from underhood.recipes.training_curves import read_training_curves

        return read_training_curves(self.path)

    def __repr__(self) -> str:
        return f"<run {self.path}: {', '.join(self.models) or 'no model yet'}, made from {self.spec.model}>"

    def _repr_html_(self) -> str:
        data = self.spec.data if isinstance(self.spec.data, str) else ", ".join(self.spec.data)
        facts = {
            "Folder": self.path,
            "Models": ", ".join(self.models) or "none yet",
            "Made from": self.spec.model,
            "Data": data,
        }
        return notebook.framed(notebook.facts_table(f"Run {self.path.name}", facts), *self.curves().charts())
