"""Stages filmed while they train: samples as events, small snapshots, and a training that is none the wiser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from underhood.core.checkpoint import module_tensors, read_checkpoint
from underhood.core.runlog import RunLog, read_events
from underhood.data.shards import TokenShards, write_shards
from underhood.infer.load import load
from underhood.infer.stages import steps_on_disk
from underhood.recipes.film import Film, FilmPrompt, snapshot_steps, text_prompt
from underhood.recipes.report.film import film_strips
from underhood.recipes.report.run_reader import read_run
from underhood.text.bpe import BytePairTokenizer, train_bpe

sys.path.append(str(Path(__file__).parents[1] / "train"))
from small_training import digest, small_model, train

from underhood.infer.sample import GREEDY
from underhood.train.loop import FitSpec

STAGES = ("pretrain", "sft", "dpo")


def shards(folder: Path, texts: list[str]) -> tuple[TokenShards, BytePairTokenizer]:
    tokenizer = train_bpe(texts, vocab_size=320)
    eot = tokenizer.special["<|endoftext|>"]
    ids = [tokenizer.encode(text) for text in texts]
    sizes = [len(text.encode()) for text in texts]
    return write_shards(folder, ids, eot_id=eot, tokenizer_digest="x", byte_counts=sizes), tokenizer


def test_snapshot_steps_grow_by_a_constant_factor_from_the_untrained_model_on():
    steps = snapshot_steps(1000, 6, fresh=True)
    assert steps == [0, 1, 4, 16, 63, 251, 999]
    assert snapshot_steps(1000, 6, fresh=False) == steps[1:]
    assert snapshot_steps(4, 6, fresh=True) == [0, 1, 2, 3]
    assert snapshot_steps(1, 3, fresh=True) == [0]


def test_text_prompt_is_a_signature_where_the_text_has_them_and_first_words_elsewhere(tmp_path: Path):
    code = "os.path\nCommon operations.\n\nos.path.join(a, *p)\nJoin two or more components."
    held_out, tokenizer = shards(tmp_path / "code", [code])
    prompt = text_prompt(held_out, tokenizer)
    assert prompt.text == "os.path.join(a, *p)\n"
    assert prompt.ids == (held_out.eot_id, *tokenizer.encode(prompt.text))
    held_out, tokenizer = shards(
        tmp_path / "prose", ["# Notes\n\nThe list of things (all of them) to buy today.\n" * 3]
    )
    assert text_prompt(held_out, tokenizer).text == "The list of things"


def test_fit_is_bit_identical_whether_it_is_filmed_or_not_and_snapshots_are_its_weights(tmp_path: Path):
    alone, _ = train(None, FitSpec(steps=9))
    model, log = small_model(), RunLog(None)
    events: list[dict[str, Any]] = []
    log.listeners.append(events.append)
    tokenizer = train_bpe(["abc"], vocab_size=260)
    weights: dict[int, dict[str, torch.Tensor]] = {}
    films: list[Film] = []

    def watch(step: int, share: float) -> None:
        weights[step] = {name: tensor.clone() for name, tensor in module_tensors(films[0].model).items()}
        films[0](step, share)

    def building(trained: Any) -> Any:
        prompt = FilmPrompt("a", (1, 2), (), GREEDY)
        films.append(Film(trained, "test", tokenizer, log, prompt=prompt, seconds=1e6, snapshots=(tmp_path, [0, 1, 3])))
        from underhood.train.optim import MuonAdamWSpec

        return MuonAdamWSpec(matrix_lr=0.02, lr=5e-3).build(trained)

    model, _ = train(None, FitSpec(steps=9), optimizer=building, watch=watch)
    assert digest(model) == digest(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (0, 1, 3)]
    for step in (0, 1, 3):
        saved = read_checkpoint(tmp_path / f"step-{step:08d}").tensors("model")
        assert all(torch.equal(saved[name], tensor.half()) for name, tensor in weights[step].items())
    steps = [event["step"] for event in events if event["kind"] == "sample"]
    assert steps[0] == 0
    assert steps[-1] == 9


def test_film_takes_fewer_samples_where_they_would_cost_too_much():
    now = [0.0]

    def slow() -> float:
        now[0] += 1.0  # a sample takes a second
        return now[0]

    log = RunLog(None)
    events: list[dict[str, Any]] = []
    log.listeners.append(events.append)
    tokenizer = train_bpe(["abc"], vocab_size=260)
    prompt = FilmPrompt("a", (1, 2), (), GREEDY)
    film = Film(small_model(), "test", tokenizer, log, prompt=prompt, seconds=200.0, clock=slow)
    for step in range(101):
        film(step, step / 100)
    assert [event["step"] for event in events] == [0, 34, 67, 100]  # 1.5 % of 200 s: three more


def test_build_films_every_stage_and_its_snapshots_load_like_checkpoints(tiny_run: Path):
    samples = [event for event in read_events(tiny_run / "events.jsonl") if event["kind"] == "sample"]
    for stage in STAGES:
        own = [event for event in samples if event["stage"] == stage]
        assert [event["share"] for event in own] == [1.0], "a stage of seconds is sampled at its end"
    assert [strip.stage for strip in film_strips(read_run(tiny_run))] == list(STAGES)
    evaluations = [event for event in read_events(tiny_run / "events.jsonl") if event["kind"] == "eval"]
    assert all("bits_per_byte" in event for event in evaluations if event["stage"] == "pretrain")
    assert any(event["stage"] == "sft" for event in evaluations)
    paths = steps_on_disk(tiny_run, "base")
    assert sorted(paths)[0] == 0
    untrained = load(paths[0])
    assert (untrained.stage, untrained.step, untrained.chats) == ("base", 0, False)
    assert untrained.generate("The", max_tokens=3, temperature=0)
    assert all(tensor.dtype == torch.float32 for tensor in untrained.model.parameters())
    whole = (paths[max(paths)] / "model.safetensors").stat().st_size
    assert (paths[0] / "model.safetensors").stat().st_size == pytest.approx(whole / 2, rel=0.1)
