"""Small test sets in the forms that suites pass on and that authors publish, in our own words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ["list", "dict", "tuple", "set", "string", "number", "file", "path"]


def choice_records(count: int) -> list[dict[str, Any]]:
    return [
        {
            "query": f"Question: Which of these holds {WORDS[n % 8]} number {n}?",
            "choices": [f"the {WORDS[(n + k) % 8]}{' of items' * (k % 3)}" for k in range(4)],
            "gold": n % 4,
        }
        for n in range(count)
    ]


def hellaswag_records(count: int) -> list[dict[str, Any]]:
    return [
        {
            "query": f"Cooking: A man takes {n} items from the list. He",
            "choices": ["changes the list.", "holds them all.", "is a mutable sequence.", "can be changed, and more."],
            "gold": (3 * n) % 4,
        }
        for n in range(count)
    ]


def piqa_records(count: int) -> list[dict[str, Any]]:
    return [
        {"query": f"Question: hold {n} items\n", "choices": [f"use a list of {n}", "use numbers"], "gold": n % 2}
        for n in range(count)
    ]


def boolq_records(count: int) -> list[dict[str, Any]]:
    return [
        {
            "query": f"Passage: The list {WORDS[n % 8]} holds {n} items.\nQuestion: is a list mutable?",
            "choices": ["no", "yes"],
            "gold": (n // 2) % 2,
        }
        for n in range(count)
    ]


def winogrande_records(count: int) -> list[dict[str, Any]]:
    return [
        {
            "context_options": [
                f"The list and the {WORDS[1 + n % 7]} met, so the list",
                f"The list and the {WORDS[1 + n % 7]} met, so the {WORDS[1 + n % 7]}",
            ],
            "continuation": f"can be changed {n} times.",
            "gold": n % 2,
        }
        for n in range(count)
    ]


def lambada_records(count: int) -> list[dict[str, Any]]:
    return [
        {"context": f"The items, the list and the {WORDS[n % 8]}, said the {n}", "continuation": WORDS[(n + 3) % 8]}
        for n in range(count)
    ]


def gsm8k_records(count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"How much is {n} and {n}?", "answer": f"{n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}"}
        for n in range(1, count + 1)
    ]


RECORDS = {
    "arc_easy": choice_records,
    "hellaswag": hellaswag_records,
    "piqa": piqa_records,
    "boolq": boolq_records,
    "winogrande": winogrande_records,
    "lambada": lambada_records,
    "gsm8k": gsm8k_records,
}


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_sets(folder: Path, count: int = 12) -> Path:
    for name, records in RECORDS.items():
        write_records(folder / f"{name}.jsonl", records(count))
    return folder
