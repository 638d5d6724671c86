"""Right answers of small models by temperature: the evidence for their default sampling.

Run it with ``python benchmarks/bench_default_sampling.py runs/pydocs --model smollm2``. It prints a table and one JSON
line. Three things are counted at each temperature, always with ``min_p`` 0.05:

- facts: SmolLM2's answers to ten questions that it can answer, several draws each; right if the word is in them;
- passages: a run's free answers (not held to quotations) to questions about functions that it never saw;
- repeats: of text that the run's base model continues, the share of 4-grams that it had written before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel, load
from underhood.infer.sample import SamplingSpec
from underhood.recipes.grounded_evaluation import is_right
from underhood.recipes.training_data import chosen, read_stage_data
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.retrieve.retriever import Retriever
from underhood.retrieve.template import TAUGHT

TEMPERATURES = (0.0, 0.2, 0.4, 0.7, 1.0)
FACTS = (
    ("What is the capital of France?", "paris"),
    ("What is the capital of Italy?", "rome"),
    ("What is the capital of Japan?", "tokyo"),
    ("What colour is the sky on a clear day?", "blue"),
    ("Which planet is known as the red planet?", "mars"),
    ("What do bees make?", "honey"),
    ("What is frozen water called?", "ice"),
    ("How many legs does a spider have?", "eight"),
    ("Who wrote Romeo and Juliet?", "shakespeare"),
    ("What is the opposite of hot?", "cold"),
)


def sampling(temperature: float, seed: int = 0) -> SamplingSpec:
    return SamplingSpec(temperature=temperature, min_p=0.05, seed=seed)


def facts(model: LoadedModel, temperature: float, draws: int) -> float:
    """Share of right answers to `FACTS`."""
    assert model.template is not None
    prompts = [
        model.template.render(model.tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True).ids
        for question, _ in FACTS
    ]
    count = 1 if temperature == 0 else draws
    done = generate(
        model.model, prompts * count, max_new_tokens=24, sampling=sampling(temperature), stop_ids=model.stop_ids
    )
    texts = [model.tokenizer.decode(each.ids).lower() for each in done]
    right = [
        word in text or (word == "eight" and "8" in text) for (_, word), text in zip(FACTS * count, texts, strict=True)
    ]
    return sum(right) / len(right)


def passages(run: Path, model: LoadedModel, temperature: float, questions: int) -> float:
    """Share of right answers from the passages that are found."""
    assert model.template is not None
    described = [each for each in read_stage_data(run / "data").grounded if each.kind == "describe"]
    picked = chosen(described, questions, 0)
    retriever = Retriever(PassageIndex.load(run / RUN_INDEX), TAUGHT, tokenizer=model.tokenizer)
    prompts: list[Sequence[int]] = []
    for question in picked:
        messages = retriever.prepare([{"role": "user", "content": question.prompt}], quote=False).messages
        prompts.append(model.template.render(model.tokenizer, messages, add_generation_prompt=True).ids)
    done = generate(model.model, prompts, max_new_tokens=96, sampling=sampling(temperature), stop_ids=model.stop_ids)
    right = [
        is_right(model.tokenizer.decode(each.ids), question.expected or "")
        for each, question in zip(done, picked, strict=True)
    ]
    return sum(right) / len(right)


def repeats(model: LoadedModel, temperature: float, texts: int = 8) -> float:
    """Share of the 4-grams of a continuation of 160 tokens that it holds already."""
    prompts = [model.prompt_ids(start) for start in ("The list", "Return", "A module", "If the")] * (texts // 4)
    done = generate(model.model, prompts, max_new_tokens=160, sampling=sampling(temperature))
    grams = [[tuple(each.ids[i : i + 4]) for i in range(len(each.ids) - 3)] for each in done]
    return 1 - sum(len(set(each)) for each in grams) / sum(map(len, grams))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--questions", type=int, default=40)
    args = parser.parse_args()
    published, chat, base = load(args.model), load(args.run), load(args.run, "base")
    rows = []
    print("temperature  facts  passages  repeats")
    for temperature in TEMPERATURES:
        row = {
            "temperature": temperature,
            "facts": facts(published, temperature, args.draws),
            "passages": passages(args.run, chat, temperature, args.questions),
            "repeats": repeats(base, temperature),
        }
        rows.append(row)
        print(f"{temperature:11.1f}  {row['facts']:5.2f}  {row['passages']:8.2f}  {row['repeats']:7.2f}", flush=True)
    print(json.dumps({"benchmark": "default_sampling", "rows": rows}))


if __name__ == "__main__":
    main()
