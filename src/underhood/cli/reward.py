"""``underhood reward``: trains a reward model on comparisons, and scores answers with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.recipes.finetune_spec import RewardTuningSpec


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, RewardTuningSpec):
    """Trains a reward model from any model on comparisons in --data, or scores
    the answers of --score with a reward model so trained. What is interrupted
    goes on.

    Records to learn from have a prompt with chosen and rejected, or with answers
    and ranking (1 is the best). Records to score have a prompt with answer or
    answers; each answer's score is printed on a line of its own.
    """

    FIRST: ClassVar = ("model", "data", "score", "out", "lora_rank", "epochs", "steps", "minutes", "lr", "json")
    REST: ClassVar = "Further settings"

    model: Positional[str]
    """A run, a Hugging Face folder, a GGUF file, a name like smollm2; to score, a reward model's run."""

    data: str = ""
    """A file of comparisons to learn from."""

    score: Path | None = None
    """A file of answers to score: JSON lines, JSON or Parquet."""

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-reward-DATA if left out."""

    json: bool = False
    """Prints JSON; progress goes to standard error."""


def run(args: Args) -> int:
    if bool(args.data) == (args.score is not None):
        raise UserError("--data trains and --score scores", fix="Give one of them")
    return _train(args) if args.score is None else _score(args, args.score)


def _train(args: Args) -> int:
    from underhood.cli.preferences import show_judged
    from underhood.cli.training_verb import follow_training
    from underhood.recipes.published_run import model_stem
    from underhood.recipes.reward_tuning import train_reward_model

    path = args.out or Path("runs") / f"{model_stem(args.model)}-reward-{Path(args.data).stem}"
    training = train_reward_model(args.settings, path)
    ending = {"command": "reward RUN --score FILE", "about": "score answers with it"}
    return follow_training(*training, show_judged, as_json=args.json, **ending)


def _score(args: Args, file: Path) -> int:
    from underhood.data.judged_answers import read_answers_to_score
    from underhood.recipes.reward_tuning import is_reward_model, load_reward_model

    if not is_reward_model(Path(args.model)):
        raise UserError(
            f"there is no reward model in {args.model}",
            fix="Make one: underhood reward RUN, or underhood reward MODEL --data FILE",
        )
    examples = read_answers_to_score(file)
    scores = load_reward_model(Path(args.model), device=args.device).score(examples)
    for example, values in zip(examples, scores, strict=True):
        for answer, value in zip(example.answers, values, strict=True):
            line = {"source": example.source, "answer": answer, "score": value}
            print(json.dumps(line, ensure_ascii=False) if args.json else f"{value:.4f}")
    return 0
