"""Against EleutherAI's lm-eval: its own Hugging Face backend on our export, and our models under it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_files import write_sets

from recipes.export_run import export_run
from underhood.core.errors import UserError
from underhood.evals.likelihood import LikelihoodScorer
from underhood.evals.score_tasks import score_task
from underhood.evals.tasks import TASKS
from underhood.infer.load import LoadedModel, load
from underhood.recipes.export.export import export

COUNT = 12
PROMPTS = {
    "arc_easy": "{{query}}\nAnswer:",
    "hellaswag": "{{query}}",
    "piqa": "{{query.rstrip()}}\nAnswer:",
    "boolq": "{{query}}\nAnswer:",
}
GENERATION = {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 40}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), COUNT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(tmp_path_factory.mktemp("harness") / "run", context=400)


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return load(run)


@pytest.fixture(scope="module")
def theirs(run: Path) -> Any:
    """lm-eval's own backend for transformers, on our model as exported."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(export(run).path), device="cpu", dtype="float32", batch_size=4)


def harness_task(name: str, files: Path, shots: int) -> Any:
    """The set as a task of lm-eval, from the same file."""
    from lm_eval.api.task import ConfigurableTask

    config: dict[str, Any] = {
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(files / f"{name}.jsonl")}},
        "test_split": "test",
        "num_fewshot": shots,
        "fewshot_config": {"sampler": "first_n", "split": "test"},
    }
    if name in PROMPTS:
        config |= {
            "output_type": "multiple_choice",
            "doc_to_text": PROMPTS[name],
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [{"metric": metric} for metric in ("acc", "acc_bytes")],
        }
    elif name == "winogrande":
        config |= {
            "output_type": "multiple_choice",
            "doc_to_text": lambda doc: doc["gold"],
            "doc_to_choice": "context_options",
            "doc_to_target": lambda doc: doc["continuation"],
            "metric_list": [{"metric": "acc"}],
        }
    elif name == "lambada":
        config |= {
            "output_type": "loglikelihood",
            "doc_to_text": "{{context}}",
            "doc_to_target": "{{' ' + continuation}}",
            "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        }
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": GENERATION,
            "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
            "filter_list": [
                {
                    "name": "strict",
                    "filter": [
                        {"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"},
                        {"function": "take_first"},
                    ],
                }
            ],
        }
    return ConfigurableTask(config=config)


def simple_evaluate(model: Any, tasks: list[Any]) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.disable(logging.WARNING)
    try:
        actual = lm_eval.simple_evaluate(
            model,
            tasks=tasks,
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
            task_manager=TaskManager(include_defaults=False),  # reading its own 12,000 tasks takes most of a minute
        )
    finally:
        logging.disable(logging.NOTSET)
    assert actual is not None
    return actual


def without_opening(loaded: LoadedModel) -> LikelihoodScorer:
    """As transformers reads our export: it puts nothing in front of a text."""
    return LikelihoodScorer(
        model=loaded.model, tokenizer=loaded.tokenizer, prefix=loaded.tokenizer.special["<|endoftext|>"]
    )


@pytest.mark.parametrize("shots", [0, 2])
def test_items_score_the_same_matches_lm_eval_on_transformers(
    theirs: Any, loaded: LoadedModel, files: Path, shots: int
):
    """Every set, every item, every choice; accuracies follow."""
    names = ["winogrande", "lambada", *PROMPTS] if shots == 0 else ["boolq", "hellaswag"]
    actual = simple_evaluate(theirs, [harness_task(name, files, shots) for name in names])
    for name in names:
        samples = sorted(actual["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
        numbers = actual["results"][f"local_{name}"]
        ours = score_task(without_opening(loaded), TASKS[name], [files], shots=shots)
        if shots:  # lm-eval shows a question to itself where it is among the first; ours never does
            samples, items = samples[shots:], ours.items[shots:]
        else:
            items = ours.items
        for sample, item in zip(samples, items, strict=True):
            theirs_N = [response[0] for response in sample["filtered_resps"]] if name != "lambada" else None
            if theirs_N is not None:
                np.testing.assert_allclose(item["log_probs"], theirs_N, atol=1e-4)
            else:
                (log, greedy) = sample["filtered_resps"][0]
                assert item["log_prob"] == pytest.approx(log, abs=1e-4)
                assert item["greedy"] == bool(greedy)
        if shots == 0:
            values = {first.name: first.value for first in ours.measurements}
            assert values["accuracy"] == pytest.approx(numbers["acc,none"])
            if name in PROMPTS and "accuracy per byte" in values:
                assert values["accuracy per byte"] == pytest.approx(numbers["acc_bytes,none"])
            if name == "lambada":
                assert values["perplexity of the word"] == pytest.approx(numbers["perplexity,none"], rel=1e-4)


def test_written_answers_match_lm_eval_on_transformers(theirs: Any, loaded: LoadedModel, files: Path):
    from underhood.evals.harness import UnderhoodLM

    both = [
        simple_evaluate(model, [harness_task("gsm8k", files, 1)])["samples"]["local_gsm8k"]
        for model in (theirs, UnderhoodLM(without_opening(loaded), stop_ids=tuple(loaded.stop_ids)))
    ]
    texts = [
        [sample["resps"][0][0] for sample in sorted(samples, key=lambda sample: sample["doc_id"])] for samples in both
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_our_model_under_the_harness_scores_as_by_itself(loaded: LoadedModel, files: Path, run: Path):
    """With the opening that its training texts had, which lm-eval's backend for transformers leaves out."""
    from underhood.evals.harness import UnderhoodLM

    names = ["arc_easy", "lambada"]
    ours = UnderhoodLM.create_from_arg_string(f"run={run},stage=sft")
    actual = simple_evaluate(ours, [harness_task(name, files, 0) for name in names])
    for name in names:
        report = score_task(LikelihoodScorer.of(loaded), TASKS[name], [files])
        assert report.measurements[0].value == pytest.approx(actual["results"][f"local_{name}"]["acc,none"])
    plain = score_task(without_opening(loaded), TASKS["lambada"], [files])
    opened = score_task(LikelihoodScorer.of(loaded), TASKS["lambada"], [files])
    assert abs(plain.items[0]["log_prob"] - opened.items[0]["log_prob"]) > 1e-3  # the opening is read


@pytest.mark.parametrize("words", [3, 60, 300])
def test_rolling_likelihood_of_whole_texts_matches_lm_eval(theirs: Any, loaded: LoadedModel, words: int):
    """Longer than the context of 400 tokens too: every token once, in windows."""
    from lm_eval.api.instance import Instance

    from underhood.evals.harness import UnderhoodLM

    text = " ".join(f"item {n} of the list" for n in range(words))
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)]
    [wanted] = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    [actual] = UnderhoodLM(without_opening(loaded)).loglikelihood_rolling(requests)
    assert actual == pytest.approx(wanted, abs=1e-4 * len(loaded.tokenizer.encode(text)) ** 0.5)


def test_model_arguments_are_checked(run: Path):
    from underhood.evals.harness import UnderhoodLM

    for words in ("", "runs=x", f"run={run},steps=3"):
        with pytest.raises(UserError, match="expected run=FOLDER"):
            UnderhoodLM.create_from_arg_string(words)
    assert torch.is_inference_mode_enabled() is False
