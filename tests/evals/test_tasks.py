from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from task_files import RECORDS, gsm8k_records, write_records, write_sets
from tiny_models import Bigram, Bytes

from needs import shared_data
from recipes.export_run import export_run
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.evals import score_tasks, task_data
from underhood.evals.gsm8k import final_number, is_right
from underhood.evals.likelihood import LikelihoodScorer
from underhood.evals.score_tasks import score_task
from underhood.evals.task_data import load_set, with_examples
from underhood.evals.tasks import TASKS, Item, read_item, task_named
from underhood.evals.writing import write_until

PUBLISHED = {
    "arc_easy": (
        {
            "question": "What is it?",
            "choices": {"text": ["a", "bee", "sea"], "label": ["A", "B", "C"]},
            "answerKey": "C",
        },
        Item(("Question: What is it?\nAnswer:",) * 3, (" a", " bee", " sea"), 2),
    ),
    "hellaswag": (
        {
            "activity_label": "How to cook",
            "ctx_a": "[header] Boil water [title] Take a pot.",
            "ctx_b": "then you",
            "endings": ["[step] wait.", "run  away."],
            "label": "1",
        },
        Item(("How to cook: Boil water. Take a pot. Then you",) * 2, ("  wait.", " run away."), 1),
    ),
    "piqa": (
        {"goal": "open a jar", "sol1": "turn the lid", "sol2": "sing", "label": 0},
        Item(("Question: open a jar\nAnswer:",) * 2, (" turn the lid", " sing"), 0),
    ),
    "boolq": (
        {"question": "is it so", "passage": "It is so.", "answer": True},
        Item(("It is so.\nQuestion: is it so?\nAnswer:",) * 2, (" no", " yes"), 1),
    ),
    "winogrande": (
        {"sentence": "The cup is in the bag as _ is small.", "option1": "the cup", "option2": "the bag", "answer": "1"},
        Item(("The cup is in the bag as the cup", "The cup is in the bag as the bag"), (" is small.", " is small."), 0),
    ),
    "lambada": ({"text": "He sat down on the chair"}, Item(("He sat down on the",), (" chair",), 0)),
    "gsm8k": (
        {"question": "1 and 1?", "answer": "It is 2.\n#### 2"},
        Item(("Question: 1 and 1?\nAnswer:",), (" It is 2.\n#### 2",), 0),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_published_records_become_the_customary_question(name: str):
    record, wanted = PUBLISHED[name]
    assert read_item(TASKS[name], record, "record 1") == wanted


@pytest.mark.parametrize("name", ["arc_easy", "hellaswag", "piqa", "boolq", "winogrande", "lambada", "gsm8k"])
def test_local_files_are_found_and_read_as_a_whole(name: str):
    counts = {"arc_easy": 2376, "boolq": 3270, "hellaswag": 1000, "lambada": 5153, "piqa": 1838, "winogrande": 1267}
    folder = shared_data("math") if name == "gsm8k" else shared_data("mc")
    actual = load_set(TASKS[name], [folder])
    assert len(actual.items) == counts.get(name, 1319)
    assert not any(context.endswith(" ") for item in actual.items for context in item.contexts if name == "boolq")
    assert all(text.startswith(" ") for item in actual.items for text in item.continuations)
    if name == "boolq":
        assert sum(item.answer for item in actual.items) == 2033  # "yes", as the data's own note counts
    if name == "gsm8k":
        assert all(is_right(item.target, item.target) for item in actual.items)


def test_every_choice_is_scored_by_its_own_tokens_matches_the_bigram(tmp_path: Path):
    """Against log p summed by hand, for contexts that differ (WinoGrande) and choices that differ (ARC)."""
    tokenizer, model = Bytes(), Bigram(512, seed=1, positional=False)
    reader = LikelihoodScorer(model=model, tokenizer=tokenizer, opening=(511,))
    folder = write_sets(tmp_path)
    logs = model.table.detach().log_softmax(-1)
    for name in ("arc_easy", "winogrande"):
        report = score_task(reader, TASKS[name], [folder])
        for item, actual in zip(load_set(TASKS[name], [folder]).items, report.items, strict=True):
            for context, text, value in zip(item.contexts, item.continuations, actual["log_probs"], strict=True):
                ids = tokenizer.encode(context)[-1:] + tokenizer.encode(text)
                wanted = sum(float(logs[a, b]) for a, b in pairwise(ids))
                assert value == pytest.approx(wanted, abs=1e-3)
        if name == "arc_easy":  # (the bigram can't tell some of WinoGrande's contexts apart, and ties share the credit)
            raw = [int(np.argmax(each["log_probs"])) == each["answer"] for each in report.items]
            assert report.measurements[0].value == pytest.approx(np.mean(raw))
            per_byte = [np.array(each["log_probs"]) / each["bytes"] for each in report.items]
            right = [int(value.argmax()) == each["answer"] for value, each in zip(per_byte, report.items, strict=True)]
            assert report.measurements[1].name == "accuracy per byte"
            assert report.measurements[1].value == pytest.approx(np.mean(right))
            assert report.measurements[0].chance == 0.25


def test_accuracies_have_bootstrap_intervals_and_wilsons_where_all_items_agree():
    credit = np.array([1.0] * 30 + [0.0] * 50 + [0.5] * 20)  # ties share a credit
    actual = score_tasks._accuracy("accuracy", credit, 0.25)
    draw = np.random.default_rng(5)
    means = [draw.choice(credit, len(credit)).mean() for _ in range(4000)]
    assert (actual.low, actual.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.012)
    assert actual.value == 0.4
    for share in (0.0, 1.0):
        same = score_tasks._accuracy("accuracy", np.full(20, share), None)
        assert same.high - same.low > 0.1  # all alike is not certain


def test_a_set_whose_choices_are_equally_long_has_one_accuracy(tmp_path: Path):
    reader = LikelihoodScorer(model=Bigram(512), tokenizer=Bytes(), opening=(511,))
    report = score_task(reader, TASKS["winogrande"], [write_sets(tmp_path)])
    assert [measurement.name for measurement in report.measurements] == ["accuracy"]


def test_last_word_counts_what_the_model_would_write_and_its_perplexity(tmp_path: Path):
    """A table that makes every letter's successor certain: 'o' follows 'e', and so on through " oven"."""
    model = Bigram(512, positional=False)
    with torch.no_grad():
        model.table.zero_()
        for a, b in zip(b"e oven"[:-1], b"e oven"[1:], strict=True):
            model.table[a, b] += 8.0
    model.table.data[ord("e"), ord(" ")] = 9.0  # after "the", a space; inside "oven", 'n' is second best
    reader = LikelihoodScorer(model=model, tokenizer=Bytes(), opening=(511,))
    file = write_records(
        tmp_path / "lambada.jsonl",
        [{"context": "the", "continuation": "ov"}, {"context": "the", "continuation": "oven"}],
    )
    report = score_task(reader, TASKS["lambada"], [file.parent])
    assert [item["greedy"] for item in report.items] == [True, False]
    accuracy, perplexity = report.measurements
    assert accuracy.value == 0.5
    logs = [item["log_prob"] for item in report.items]
    assert perplexity.value == pytest.approx(math.exp(-np.mean(logs)))


def test_examples_stand_in_front_and_never_show_the_question_itself(tmp_path: Path):
    folder = write_sets(tmp_path, 4)
    actual = load_set(TASKS["arc_easy"], [folder], shots=2)
    for number, item in enumerate(actual.items):
        for context, plain in zip(with_examples(actual, number, 2), item.contexts, strict=True):
            *examples, last = context.split("\n\n")
            assert last == plain
            others = [other for other in actual.items if other != item][:2]
            assert examples == [other.contexts[0] + other.continuations[other.answer] for other in others]
    with pytest.raises(UserError, match="too few questions for 4 examples"):
        with_examples(load_set(TASKS["arc_easy"], [folder], shots=4), 0, 4)


def test_examples_come_from_the_training_file_beside_the_set(tmp_path: Path):
    write_records(tmp_path / "gsm8k" / "test.jsonl", gsm8k_records(3))
    write_records(tmp_path / "gsm8k" / "train.jsonl", gsm8k_records(9)[5:])
    actual = load_set(TASKS["gsm8k"], [tmp_path], shots=2, limit=2)
    assert len(actual.items) == 2
    assert [item.contexts[0] for item in actual.examples][:2] == [
        "Question: How much is 6 and 6?\nAnswer:",
        "Question: How much is 7 and 7?\nAnswer:",
    ]


def test_sets_come_from_the_hub_where_no_folder_is_given(monkeypatch):
    requests = []

    def records(spec, *, split, limit=None):
        requests.append((spec, split))
        if split == "train":
            raise UserError(f"hf:{spec} has no split 'train'")
        return [PUBLISHED["boolq"][0]] * 3

    monkeypatch.setattr(task_data, "hub_records", records)
    actual = load_set(TASKS["boolq"], shots=1)
    assert actual.items == (PUBLISHED["boolq"][1],) * 3
    assert actual.examples == actual.items
    assert requests == [("google/boolq", "validation"), ("google/boolq", "train")]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is #### 1,234.", "1234"),
        ("#### -5 and #### 6", "-5"),
        ("#### $7", None),
        ("the answer is 8", None),
        ("#### 0.5", "0.5"),
    ],
)
def test_final_number_is_what_stands_behind_the_mark(text: str, number: str | None):
    assert final_number(text) == number


class Scripted:
    """Writes a fixed text, byte by byte, whatever it has read before the last colon."""

    vocab_size, context_length = 512, 400

    def __init__(self, text: str):
        self.text, self.longest = text.encode(), 0

    def __call__(self, tokens, *, cache=None, positions=None):
        self.longest = max(self.longest, tokens.shape[1])
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, ids in enumerate(tokens.tolist()):
            done = len(ids) - 1 - max(at for at, id in enumerate(ids) if id == ord(":"))
            logits[row, -1, self.text[min(done, len(self.text) - 1)]] = 9.0
        return logits


def test_gsm8k_counts_the_number_of_the_written_answer(tmp_path: Path):
    write_records(tmp_path / "gsm8k.jsonl", gsm8k_records(4))
    model = Scripted(" 2+2=4\n#### 4\n\nQuestion")
    report = score_task(
        LikelihoodScorer(model=model, tokenizer=Bytes(), opening=(511,)), TASKS["gsm8k"], [tmp_path], shots=1
    )
    assert report.items[0]["text"].startswith(" 2+2=4\n#### 4\n\n")
    assert [item["right"] for item in report.items] == [False, True, False, False]
    assert report.measurements[0].value == 0.25


def test_writing_stops_at_the_first_stop_string_also_across_rounds():
    model = Scripted("a" * 70 + "Question: never read")
    [text] = write_until(model, Bytes(), [[511, ord(":")]], ["Question:", "zzz"], max_new_tokens=200)
    assert text == "a" * 70
    [short] = write_until(model, Bytes(), [[511, ord(":")]], ["Question:"], max_new_tokens=65)
    assert short == "a" * 65


def test_a_prompt_too_long_for_the_context_loses_its_beginning():
    model = Scripted("b")
    long = [511] + [ord("x")] * 500 + [ord(":")]
    assert write_until(model, Bytes(), [long], [], max_new_tokens=30) == ["b" * 30]
    assert model.longest <= model.context_length
    with pytest.raises(UserError, match="no room for the answer"):
        write_until(model, Bytes(), [long], [], max_new_tokens=400)


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="Did you mean hellaswag"):
        task_named("helaswag")
    with pytest.raises(UserError, match="arc_easy is not in"):
        load_set(TASKS["arc_easy"], [tmp_path])
    with pytest.raises(UserError, match="is not a folder"):
        load_set(TASKS["arc_easy"], [tmp_path / "none"])
    write_records(tmp_path / "piqa.jsonl", [{"goal": "x", "sol1": "y"}])
    with pytest.raises(UserError, match="record 1 is not a record of piqa; expected a field 'sol2', got goal, sol1"):
        load_set(TASKS["piqa"], [tmp_path])
    write_records(tmp_path / "boolq.jsonl", [*RECORDS["boolq"](1), {"query": "q", "choices": ["no", "yes"], "gold": 2}])
    with pytest.raises(UserError, match="record 2 is not a record of boolq"):
        load_set(TASKS["boolq"], [tmp_path])
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"context": "a", "continuation": "b"}) + "\n{oops\n")
    with pytest.raises(UserError, match=r"lambada.jsonl line 2 is not JSON"):
        load_set(TASKS["lambada"], [tmp_path])
    with pytest.raises(UserError, match="limit"):
        load_set(TASKS["boolq"], [tmp_path], limit=0)


def test_eval_command_scores_a_run_on_sets_and_prints_a_table_or_json(tmp_path: Path, capsys):
    run, folder = export_run(tmp_path / "run", context=400), write_sets(tmp_path / "sets", 6)
    words = ["eval", str(run), "--task-data", str(folder), "--tasks", "arc_easy,lambada"]
    assert main([*words, "--limit", "4"]) == 0
    table = capsys.readouterr().out
    assert "arc_easy" in table
    assert "accuracy per byte" in table
    assert "perplexity of the word" in table
    assert main([*words, "--json", "--shots", "1"]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert [task["task"] for task in actual["tasks"]] == ["arc_easy", "lambada"]
    assert all(task["shots"] == 1 and len(task["items"]) == 6 for task in actual["tasks"])
    for more, output in [
        (["--tasks", "arc"], "Did you mean arc_easy"),
        (["--limit", "3"], "Name the sets with --tasks"),
    ]:
        assert main(["eval", str(run), *more]) == 2
        assert output in capsys.readouterr().err
