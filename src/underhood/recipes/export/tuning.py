"""Fine-tuning section of a model card, beside the facts of the model it started from.

It is read from the fine-tuning's folder; see `recipes.finetune` for the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.config import from_json
from underhood.core.errors import UserError
from underhood.core.toml import read_toml
from underhood.recipes.finetune_spec import FINETUNE_FILE, FinetuneSpec
from underhood.recipes.stages.sft import STAGE as SFT


@dataclass(frozen=True)
class Tuning:
    """A finished fine-tuning.

    Attributes:
        spec: its settings.
        results: its ``results.json``.
        counts: conversations by ``train``, ``validation`` and ``test``.
    """

    spec: FinetuneSpec
    results: Mapping[str, Any]
    counts: Mapping[str, int]

    @property
    def origin(self) -> Path:
        """Where the model was that it started from."""
        return Path(self.spec.model)

    def data(self) -> str:
        """What it was fine-tuned on."""
        held_out = " and ".join(f"{self.counts[name]:,} to {verb}" for name, verb in _HELD_OUT.items())
        return (
            f"It was fine-tuned on `{Path(self.spec.data).name}`: {self.counts['train']:,} conversations, with "
            f"{held_out} held out; their form is {self.results['form']}. Only what the assistant says was learnt."
        )

    def evaluation(self) -> str:
        """The held-out conversations, before and after."""
        rows = [
            "| held-out conversations | answer tokens | loss before | after | tokens told right before | after |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, before in self.results["before"].items():
            after = self.results["after"][name]
            losses = " | ".join(f"{scores['loss']:.3f}" for scores in (before, after))
            shares = " | ".join(f"{100 * scores['accuracy']:.1f} %" for scores in (before, after))
            rows.append(f"| {name} | {after['tokens']:,} | {losses} | {shares} |")
        if len(rows) == 2:
            return "No conversations were held out, so this model has not been evaluated."
        return "\n".join(rows) + "\n\nLosses are nats per token of the answers."

    def making(self) -> list[str]:
        """How it was fine-tuned, a line each."""
        results, spec = self.results, self.spec
        stage = f", its {spec.stage} model" if spec.stage else ""
        lines = [f"- started from: `{spec.model}`{stage}"]
        if results["lora_rank"]:
            alpha = spec.lora_alpha if spec.lora_alpha is not None else 2 * results["lora_rank"]
            base = f" on a base held in {spec.bits} bits" if spec.bits else ""
            kind = f"alpha {alpha:g}{', rsLoRA' if spec.rslora else ''}{base}"
            how = f"LoRA of rank {results['lora_rank']}, {kind}, folded in"
        else:
            how = "all weights"
        trained = f"{results['trained_parameters']:,} of {results['parameters']:,} numbers"
        lines.append(f"- trained: {how} ({trained})")
        tokens = f"{spec.batch_size * spec.accumulate} rows of {results['context_length']:,} tokens"
        lines.append(
            f"- {SFT.name}: {results['steps']:,} steps of {tokens}, learning rate {results['lr']:.3g}, seed {spec.seed}"
        )
        lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()))
        if results.get("commit"):
            lines.append(f"- commit of Underhood: {results['commit']}")
        return lines


_HELD_OUT = {"validation": "validate", "test": "test"}


def read_tuning(run: Path) -> Tuning | None:
    """The fine-tuning that made a folder; None for a folder that something else made.

    Raises:
        UserError: one of its files is damaged.
    """
    settings = run / FINETUNE_FILE
    if not settings.exists():
        return None
    spec = from_json(FinetuneSpec, read_toml(settings), where=str(settings))
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        split = json.loads((run / "split.json").read_text(encoding="utf-8"))
        tuning = Tuning(spec, results, {name: len(rows) for name, rows in split.items()})
        for section in (tuning.data, tuning.evaluation, tuning.making):
            section()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the records of {run} are incomplete or damaged ({error})", fix="Fine-tune again") from error
    return tuning
