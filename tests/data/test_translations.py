"""Parallel text: reading, splitting, batches and the generator of dates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
import torch

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE
from underhood.data.dates import FORMS, date_pairs
from underhood.data.translation_batches import TranslationBatches, pad_sources, translation_batch
from underhood.data.translations import Translation, read_translations, split_translations

PAIRS = [("Go.", "Va !"), ("Run!", "Cours !"), ("Run!", "Courez !"), ("I see.", 'Je "vois".')]


def texts(path: Path, **columns: str) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in read_translations(path, **columns)]


def test_pairs_are_read_from_tables_and_json_lines(tmp_path: Path) -> None:
    plain, authors, headed, lines = (tmp_path / name for name in ("a.tsv", "b.txt", "c.csv", "d.jsonl"))
    plain.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    authors.write_text("".join(f"{source}\t{target}\tCC-BY 2.0\n" for source, target in PAIRS), encoding="utf-8")
    quoted = "".join('"{}","{}"\n'.format(*(text.replace('"', '""') for text in pair)) for pair in PAIRS)
    headed.write_text("source,target\n" + quoted, encoding="utf-8")
    lines.write_text("".join(json.dumps({"fr": b, "en": a}) + "\n" for a, b in PAIRS), encoding="utf-8")
    assert texts(plain) == texts(authors) == texts(headed) == PAIRS
    assert texts(lines, source="en", target="fr") == PAIRS
    assert read_translations(plain)[1].where == "a.tsv line 2"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "only one column\n", "holds no pair"),
        ("a.tsv", "a\tb\n\tc\n", "line 2 has no text in 'source'"),
        ("a.jsonl", '{"en": "a", "fr": "b"}\n', "no column called source"),
        ("a.jsonl", "[1]\n", "is not a JSON object"),
        ("a.zip", "x", "can't read pairs"),
    ],
)
def test_wrong_files_of_pairs_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_translations(tmp_path / name)


def test_all_translations_of_a_source_are_on_one_side_of_the_split() -> None:
    pairs = [Translation(f"s{n // 3}" + (" " if n % 3 else ""), f"t{n}") for n in range(300)]
    learn, test = split_translations(pairs, held_out=0.2, most=15, seed=1)
    assert len(test) == 15
    assert {item.source.strip() for item in test}.isdisjoint(pair.source.strip() for pair in learn)
    assert all(len(item.targets) == 3 for item in test)
    assert len(learn) + sum(len(item.targets) for item in test) == 300
    with pytest.raises(UserError, match="too few pairs"):
        split_translations(pairs[:3], held_out=0.5, most=9, seed=0)


def test_dates_are_different_and_read_in_one_way_only() -> None:
    pairs = date_pairs(5000, seed=1)
    assert len({source for source, _ in pairs}) == 5000
    assert pairs == date_pairs(5000, seed=1) != date_pairs(5000, seed=2)
    for _, target in pairs:
        assert date.fromisoformat(target).isoformat() == target
    readings: dict[str, date] = {}
    for number in range(1461):
        day = date.fromordinal(date(2000, 1, 1).toordinal() + number)
        for form in FORMS:
            assert readings.setdefault(form(day), day) == day


def rows(count: int) -> list[tuple[list[int], list[int]]]:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (count, 2), generator=draw).tolist()
    return [([number] * a, [number] * b) for number, (a, b) in enumerate(lengths)]


def test_an_epoch_has_every_pair_once_in_batches_of_the_size_wanted() -> None:
    pairs = rows(200)
    batches = TranslationBatches(pairs, end_id=999, batch_tokens=60, seed=3)
    again = TranslationBatches(pairs, end_id=999, batch_tokens=60, seed=3)
    epochs = []
    for epoch in range(2):
        numbers = []
        for number in range(len(batches)):
            batch = batches(epoch * len(batches) + number)
            assert max(batch.source.numel(), batch.tokens.numel()) <= 60
            assert torch.equal(batch.targets, again(epoch * len(batches) + number).targets)
            assert torch.equal(
                batch.tokens[:, 1:][batch.targets[:, 1:] >= 0], batch.targets[:, :-1][batch.targets[:, 1:] >= 0]
            )
            numbers.append(batch.source[:, 0].tolist())
        assert sorted(n for some in numbers for n in some) == list(range(200))
        epochs.append(numbers)
    assert epochs[0] != epochs[1]
    assert batches.epoch_of(len(batches)) == 1.0


def test_a_batch_counts_and_shards_what_is_not_padding() -> None:
    batch = translation_batch([([5, 6, 7], [8]), ([5], [8, 9]), ([4], [4])], end_id=1)
    assert batch.source.tolist() == [[5, 6, 7], [5, 0, 0], [4, 0, 0]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2], [0, -1, -1], [0, -1, -1]]
    assert batch.tokens.tolist() == [[1, 8, 0], [1, 8, 9], [1, 4, 0]]
    assert batch.targets.tolist() == [[8, 1, IGNORE], [8, 9, 1], [4, 1, IGNORE]]
    assert (batch.target_count, batch.token_count) == (7, 12)
    shards: list[Mapping[str, int]] = [vars(batch.shard(rank, 2)) for rank in range(2)]
    assert [len(shard["source"]) for shard in shards] == [2, 1]  # type: ignore[arg-type]
    assert pad_sources([[1, 2], [3, 4]])[1] is None
