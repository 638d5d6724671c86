"""The model card: what this model is, what it was made of, how good it is, and what it must not be trusted with.

Everything in it is read from the run's ``summary.json``; what the run did not record, the card says it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.evals.table import ResultsTable
from underhood.infer.load import LoadedModel
from underhood.models.base import parameter_count
from underhood.recipes.export.tuning import Tuning
from underhood.recipes.stages.registry import all_stages, find_model, stages_before


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model card's content.

    Attributes:
        title: the model's name.
        loaded: the model.
        summary: the run's ``summary.json``; empty if it has none.
        form: "hf" or "gguf".
        dtype: how the weights are stored.
        family: whose shape it has: transformers' ``model_type``.
        published: whether it is a published model that was brought in, not one that was made here.
        tuning: the fine-tuning on conversations that made it, if one did; `summary` is then that of the run where it
            started.
    """

    title: str
    loaded: LoadedModel
    summary: Mapping[str, Any]
    form: str
    dtype: str
    family: str
    published: bool = False
    tuning: Tuning | None = None

    def text(self) -> str:
        """The whole ``README.md``, with the Hub's front matter."""
        parts = [self._front_matter(), f"# {self.title}", self._what(), self._use(), self._data(), self._evaluation()]
        return "\n\n".join([*parts, self._making(), self._limits()]) + "\n"

    def _front_matter(self) -> str:
        lines = ["pipeline_tag: text-generation", f"tags: [underhood, {self.family}]"]
        if self.form == "hf":
            lines.insert(0, "library_name: transformers")
        if self._corpus_name == "pydocs":
            lines += ["language: en", "license: other", "license_name: psf-2.0"]
        return "\n".join(["---", *lines, "---"])

    @property
    def _corpus_name(self) -> str | None:
        return self.summary.get("corpus", {}).get("name")

    def _what(self) -> str:
        model, stage = self.loaded.decoder.spec, find_model(self.loaded.stage)
        done = self.loaded.stage if stage is None else stage.model_description
        if not self.published:
            origin = f"{done}. It was made with Underhood in the shape of {self.family}"
        else:
            worked = "" if stage is None else f" and {done} there"
            origin = f"of the family {self.family}. It was published by others, brought into Underhood{worked}"
        return (
            f"A language model of {parameter_count(self.loaded.model):,} parameters, {origin}: {model.layers} layers "
            f"of width {model.d_model}, a vocabulary of {model.vocab_size:,} tokens, "
            f"a context of {model.context_length:,} tokens. "
            f"The weights are stored as {self.dtype}."
        )

    def _use(self) -> str:
        if self.form == "gguf":
            return (
                "## Use\n\nAny program based on llama.cpp opens the `.gguf` file. Texts began with "
                "`<|endoftext|>` in training, so a prompt to be continued should as well; the file adds no token by "
                "itself."
            )
        if self.loaded.chats:
            lines = [
                'chat = [{"role": "user", "content": "Hello"}]',
                'options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}',
                "inputs = tokenizer.apply_chat_template(chat, **options)",
                "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))",
            ]
        else:
            opening = "<|endoftext|>" if not self.published else ""
            lines = ["# every document began with this token in training"] if opening else []
            lines += [
                f'inputs = tokenizer("{opening}The", return_tensors="pt")',
                "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))",
            ]
        code = "\n".join(
            [
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                "",
                'tokenizer = AutoTokenizer.from_pretrained("PATH")',
                'model = AutoModelForCausalLM.from_pretrained("PATH")',
                *lines,
            ]
        )
        return f"## Use\n\n```python\n{code}\n```"

    def _data(self) -> str:
        corpus = self.summary.get("corpus")
        if not corpus and self.tuning:
            text = "What the model that it started from was trained on is not recorded."
            return f"## Data\n\n{text} {self.tuning.data()}"
        if not corpus:
            return "## Data\n\nThe run this model was exported from records nothing about its training text."
        name, train, held_out = corpus.get("name"), corpus.get("train", {}), corpus.get("held_out", {})
        if name == "pydocs":
            python = corpus.get("facts", {}).get("python")
            what = f"the documentation that comes with Python{f' {python}' if python else ''} (pydocs)"
        else:
            what = f"`{name}`"
        lines = [f"Training text: {what}."]
        if train.get("documents") is not None:
            size = (
                f"{train['documents']:,} documents, {train.get('bytes', 0):,} bytes, {train.get('tokens', 0):,} tokens"
            )
            lines.append(f"It read {size}; {held_out.get('documents', 0):,} documents were held out to measure it.")
        if corpus.get("digest"):
            lines.append(f"SHA-256 of the text: `{corpus['digest']}`.")
        if self.tuning:
            lines.append(self.tuning.data())
        elif self.loaded.chats and not self.published:
            lines.append("Questions, answers and preferences for the later stages were made from that same text.")
        return "## Data\n\n" + " ".join(lines)

    def _evaluation(self) -> str:
        if self.tuning:
            return f"## Evaluation\n\n{self.tuning.evaluation()}"
        results = self.summary.get("results")
        table = ResultsTable.from_json(results, where="summary.json") if results else ResultsTable(stages=())
        stage = next((m for m in table.stages if m.stage == self.loaded.stage), None)
        if stage is None or not stage.measurements:
            return "## Evaluation\n\nThis model has not been evaluated."
        rows = ["| measured | value (95 % interval) | items | guessing gives |", "| --- | --- | ---: | ---: |"]
        for m in stage.measurements:
            chance = "" if m.chance is None else f"{100 * m.chance:.1f} %"
            rows.append(f"| {m.name} | {m.text()} | {m.n:,} | {chance} |")
        baselines = ", ".join(f"{m.name} {m.value:.3f}" for m in table.baselines)
        after = (
            f"\n\nFor comparison, bits per byte of others given the same training text: {baselines}."
            if baselines
            else ""
        )
        return "## Evaluation\n\n" + "\n".join(rows) + after

    def _making(self) -> str:
        summary, lines = self.summary, []
        if summary.get("command"):
            lines.append(f"- command: `{summary['command']}` (seed {summary.get('seed')})")
        stages = summary.get("plan", {}).get("stages", {})
        made_by = find_model(self.loaded.stage)
        if self.tuning is not None:
            made_by = find_model(self.tuning.spec.stage) if self.tuning.spec.stage else all_stages()[-1]
        for stage in () if made_by is None else (*stages_before(made_by), made_by):
            if plan := stages.get(stage.name):
                lines.append(f"- {stage.name}: {plan['steps']:,} steps, {plan['tokens']:,} tokens")
        if self.tuning:
            lines = [f"- the run that it started from: {line.removeprefix('- ')}" for line in lines]
            lines += self.tuning.making()
        lines.append(f"- exported: stage {self.loaded.stage}, step {self.loaded.step:,}")
        if self.tuning:
            return "## How it was made\n\n" + "\n".join(lines)
        machine = summary.get("machine")
        if machine:
            cores = f"{machine['cores']} cores, {machine['memory_gb']:.0f} GB"
            lines.append(f"- machine: {machine['cpu']}, {cores}, computed on {machine['device']} in {machine['dtype']}")
        if summary.get("seconds") is not None:
            lines.append(f"- the whole run took {summary['seconds'] / 60:.1f} minutes, ending {summary.get('created')}")
        if summary.get("versions"):
            versions = {"underhood": summary.get("underhood")} | dict(summary["versions"])
            lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        if summary.get("commit"):
            lines.append(f"- commit of Underhood: {summary['commit']}")
        return "## How it was made\n\n" + "\n".join(lines)

    def _limits(self) -> str:
        if self._corpus_name == "pydocs":
            licence = (
                "The text is under the Python Software Foundation License 2.0; whether weights inherit a text's "
                "licence is not settled, so name the text and its licence when you pass the model on."
            )
        elif self.published:
            licence = "The licence of the model that it came from goes on to hold; look it up before you pass it on."
        else:
            licence = (
                "No licence is stated: it depends on the training text: look up that text's terms before you "
                "publish the model, and put the licence into the lines at the top of this file."
            )
        if self.published:
            return f"## Limits and licence\n\nWhat holds of the model that it came from holds of it. {licence}"
        size = (
            "It is small and has read little: what it says about facts is often wrong, it knows nothing outside its "
            "training text, and it was not tested for harmful output. It is for study."
        )
        return f"## Limits and licence\n\n{size} {licence}"


def read_summary(run: Path) -> dict[str, Any]:
    """A run's ``summary.json``, or nothing where it has none.

    Raises:
        UserError: the file is damaged.
    """
    file = run / "summary.json"
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}", fix="Evaluate the run again to have it written anew") from error
