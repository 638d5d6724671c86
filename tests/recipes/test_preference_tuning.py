"""From a file of preferences to an aligned model or a reward model, by the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.tiny_run import make_run
from underhood.align.rewards import SampledAnswer
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.core.runlog import read_events
from underhood.data.judged_answers import JudgedAnswers
from underhood.infer.load import load
from underhood.recipes import training
from underhood.recipes.finetune_spec import PreferenceSpec, RewardTuningSpec
from underhood.recipes.finetuned_run import FinetunedRun
from underhood.recipes.judged_data import AnswerWriter
from underhood.recipes.judged_training import TunedOnJudgements
from underhood.recipes.preference_tuning import align_model, compared, preference_loss
from underhood.recipes.reward_choice import choose_reward
from underhood.recipes.reward_tuning import load_reward_model, train_reward_model

QUICK: dict[str, Any] = {"epochs": 4.0, "batch_size": 8, "accumulate": 1, "lr": 0.01}
ANSWERS = ("a mutable sequence", "a list of items", "changed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "base-run", stages=("sft",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same judgement in every form: "a mutable sequence" is better than "a list of items"."""
    folder, better, worse = tmp_path_factory.mktemp("data"), *ANSWERS[:2]
    records: dict[str, list[dict[str, Any]]] = {"pairs": [], "messages": [], "rankings": [], "labels": []}
    for number in range(60):
        prompt = f"item {number}"
        records["pairs"].append({"prompt": prompt, "chosen": better, "rejected": worse})
        sides = {
            name: [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
            for name, text in (("chosen", better), ("rejected", worse))
        }
        records["messages"].append(sides)
        records["rankings"].append({"prompt": prompt, "answers": [worse, better, ANSWERS[2]], "ranking": [2, 1, 3]})
        records["labels"].append(
            {"prompt": prompt, "completion": (better, worse)[number % 2], "label": number % 2 == 0}
        )
    for name, rows in records.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {name: folder / f"{name}.jsonl" for name in records}


def aligned(base: Path, data: Path, out: Path, **settings: Any) -> TunedOnJudgements:
    log, work = align_model(PreferenceSpec(model=str(base), data=str(data), **{**QUICK, **settings}), out)
    done = work()
    log.close()
    return done


def notes(out: Path) -> list[str]:
    return [event["text"] for event in read_events(out / "events.jsonl") if event["kind"] == "note"]


@pytest.mark.parametrize(
    ("loss", "form", "rank"),
    [
        ("dpo", "pairs", 0),
        ("dpo", "messages", 4),
        ("kto", "labels", 0),
        ("orpo", "rankings", 0),
        *(
            pytest.param(loss, "pairs", 0, marks=pytest.mark.slow)
            for loss in ("robust", "ipo", "hinge", "simpo", "kto")
        ),
    ],
)
def test_every_loss_prefers_better_answers_to_unseen_prompts(
    base: Path, files: dict[str, Path], tmp_path: Path, loss: str, form: str, rank: int
):
    settings = {"beta": 0.5} if loss in ("dpo", "kto") else {}
    done = aligned(base, files[form], tmp_path / "out", loss=loss, lora_rank=rank, **settings)
    assert done.form == ("pairs" if form == "messages" else form)
    assert done.after["test"]["preference_accuracy"] > 0.9
    assert done.after["test"]["loss"] < done.before["test"]["loss"]
    assert (tmp_path / "out" / "adapter").exists() == (rank > 0)
    before, after = load(base), load(tmp_path / "out")
    assert after.spec == before.spec
    writer = AnswerWriter.of(after)
    example = JudgedAnswers(({"role": "user", "content": "item 99"},), ANSWERS[:2], (0, 1), "here")
    gains = []
    for answer in ANSWERS[:2]:
        ids, mask = writer.write(example, answer)
        logps = [
            model(torch.tensor([ids]))[0].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].detach()
            for model in (before, after)
        ]
        gains.append(float(((logps[1] - logps[0]) * torch.tensor(mask[1:])).sum()))
    assert gains[0] > gains[1] + 0.5
    assert FinetunedRun.open(tmp_path / "out").spec.model == str(base)


class Stop(Exception):
    pass


def stop_after_five(patch: pytest.MonkeyPatch) -> None:
    real = training.fit

    def stopping(*args: Any, **named: Any):
        def stop(done: int) -> None:
            if done == 5:
                raise Stop

        return real(*args, on_step=stop, **named)

    patch.setattr(training, "fit", stopping)


def assert_same_weights(whole: Path, cut: Path) -> None:
    assert "resumed at step 3" in notes(cut)
    for mine, other in zip(load(whole).model.parameters(), load(cut).model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_an_interrupted_alignment_goes_on_to_the_same_model(
    base: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"lora_rank": 4, "save_every": 3, "steps": 6}
    aligned(base, files["pairs"], tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_after_five(patch)
        with pytest.raises(Stop):
            aligned(base, files["pairs"], tmp_path / "cut", **settings)
    aligned(base, files["pairs"], tmp_path / "cut", **settings)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupted_reward_training_goes_on_to_the_same_model(
    base: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(out: Path) -> None:
        log, work = train_reward_model(reward_spec(base, files["rankings"], steps=6, save_every=3), out)
        work()
        log.close()

    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after_five(patch)
        with pytest.raises(Stop):
            train(tmp_path / "cut")
    train(tmp_path / "cut")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    heads = [load_reward_model(tmp_path / name).model.head for name in ("whole", "cut")]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].offset, heads[1].offset)


def reward_spec(base: Path, data: Path, **settings: Any) -> RewardTuningSpec:
    return RewardTuningSpec(model=str(base), data=str(data), **{**QUICK, "lr": 3e-3, **settings})


@pytest.mark.parametrize(("form", "rank"), [("rankings", 0), ("pairs", 4)])
def test_reward_model_learns_saves_loads_and_scores(
    base: Path, files: dict[str, Path], tmp_path: Path, form: str, rank: int, capsys: pytest.CaptureFixture[str]
):
    log, work = train_reward_model(reward_spec(base, files[form], lora_rank=rank, head_lr=0.01), tmp_path / "out")
    done = work()
    log.close()
    assert done.after["test"]["preference_accuracy"] > 0.95
    again = load_reward_model(tmp_path / "out")
    rows = [json.loads(line) for line in files["pairs"].read_text().splitlines()]
    examples = [
        JudgedAnswers(({"role": "user", "content": row["prompt"]},), (row["chosen"], row["rejected"]), (0, 1), "here")
        for row in rows
    ]
    scores = torch.tensor(again.score(examples))
    assert float((scores[:, 0] > scores[:, 1]).float().mean()) > 0.95
    assert abs(float(scores[:, 0].mean())) < 0.3, "the better answers score 0 on average"
    reward = choose_reward(str(tmp_path / "out"))
    sampled = [
        SampledAnswer(rows[0]["prompt"], answer, finished) for answer in ANSWERS[:2] for finished in (True, False)
    ]
    values = reward(sampled)
    assert [values[0], values[2]] == pytest.approx(scores[0].tolist(), abs=1e-4)
    assert abs(values[1] - values[0]) > 1e-4, "an answer that was cut off is read without its end"
    file = tmp_path / "score.jsonl"
    file.write_text(json.dumps({"prompt": rows[0]["prompt"], "answers": list(ANSWERS[:2])}) + "\n")
    assert main(["reward", str(tmp_path / "out"), "--score", str(file)]) == 0
    printed = [float(line) for line in capsys.readouterr().out.split()]
    assert printed == pytest.approx(scores[0].tolist(), abs=1e-3)
    assert main(["reward", str(tmp_path / "out"), "--score", str(file), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["answer"] for line in lines] == list(ANSWERS[:2])
    assert main(["reward", str(base), "--score", str(file)]) == 2
    assert "there is no reward model in" in capsys.readouterr().err


def test_answers_are_written_alike_for_training_and_scoring_and_end_with_the_end_of_turn(base: Path):
    """The judged answer is the last turn alone, and its end is the last token: nothing is read behind it."""
    loaded = load(base)
    writer, end = AnswerWriter.of(loaded), loaded.tokenizer.special["<|im_end|>"]
    turns = [("user", "one"), ("assistant", "first"), ("user", "two")]
    messages = tuple({"role": role, "content": text} for role, text in turns)
    ids, mask = writer.write(JudgedAnswers(messages, ("second",), (0,), "here"), "second")
    assert ids[-1] == end
    assert loaded.tokenizer.decode([i for i, learnt in zip(ids, mask, strict=True) if learnt]) == "second<|im_end|>"
    assert ids[: mask.index(True)] == ids[: len(ids) - sum(mask)]


def test_model_without_a_template_reads_plain_texts_and_refuses_conversations(base: Path):
    loaded = load(base)
    writer = AnswerWriter(loaded, None)
    ids, mask = writer.write(JudgedAnswers(({"role": "user", "content": "The"},), ("list",), (0,), "a line 1"), "list")
    assert ids[-1] == loaded.stop_ids[0]
    assert ids[: mask.index(True)] == loaded.prompt_ids("The")
    turns = ({"role": "system", "content": "x"}, {"role": "user", "content": "The"})
    with pytest.raises(UserError, match=r"a line 1: .*no chat template"):
        writer.write(JudgedAnswers(turns, ("list",), (0,), "a line 1"), "list")


def test_model_without_a_template_is_told_with_a_count(
    base: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(AnswerWriter, "of", staticmethod(lambda loaded: AnswerWriter(loaded, None)))
    aligned(base, files["pairs"], tmp_path / "out", steps=1)
    assert "the model has no chat template: 60 prompts are read as plain text" in notes(tmp_path / "out")


def test_counts_of_what_is_left_out_are_told(base: Path, files: dict[str, Path], tmp_path: Path):
    rows = files["pairs"].read_text()
    rows += json.dumps({"prompt": "item " * 200, "chosen": "a", "rejected": "b"}) + "\n"
    rows += json.dumps({"prompt": "item", "chosen": "a", "rejected": "a", "by": "me"}) + "\n"
    data = tmp_path / "more.jsonl"
    data.write_text(rows)
    aligned(base, data, tmp_path / "out", steps=1)
    told = "\n".join(notes(tmp_path / "out"))
    assert "left out, as both answers are the same text: 1 pairs" in told
    assert "1 of 61 prompts" in told
    assert "by (1×)" in told
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert sum(map(len, split.values())) == 60
    assert split["test"][0].startswith("more.jsonl line ")
    with pytest.raises(UserError, match="every judged answer would be cut off"):
        aligned(base, data, tmp_path / "short", context_length=4)
    assert not (tmp_path / "short").exists()


def test_dpo_command_with_data_aligns_and_mistakes_are_named(
    base: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    words = ["dpo", str(base), "--data", str(files["pairs"]), "--out", str(out), "--steps", "2", "--batch-size", "8"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 2
    assert report["before"]["test"]["loss"] == pytest.approx(0.6931, abs=1e-3)
    for more, message in (
        (["--loss", "simpo", "--label-noise", "0.1"], "label_noise belongs to the loss dpo or robust"),
        (["--loss", "kto", "--data", str(files["rankings"])], "holds rankings"),
        (["--loss", "robust", "--label-noise", "0.7"], "below one half"),
    ):
        other = [*words[:5], str(tmp_path / "other"), *words[6:], *more]
        assert main(other) == 2
        assert message in capsys.readouterr().err
    assert main(["reward", str(base), "--data", str(files["pairs"]), "--score", str(files["pairs"])]) == 2
    assert "--data trains and --score scores" in capsys.readouterr().err


def test_rankings_become_all_their_pairs_and_losses_keep_their_own_defaults(base: Path, files: dict[str, Path]):
    from underhood.recipes.judged_data import WrittenAnswers

    example = JudgedAnswers(({"role": "user", "content": "x"},), ("a", "b", "c"), (2, 1, 2), "here")
    texts = tuple(([number, 9], [False, True]) for number in range(3))
    assert compared(WrittenAnswers(example, texts)) == [(texts[1], texts[0]), (texts[1], texts[2])]
    spec = PreferenceSpec(model="m", data="d", loss="simpo")
    assert preference_loss(spec).beta == 2.0  # type: ignore[attr-defined]
    assert preference_loss(replace(spec, beta=3.0)).beta == 3.0  # type: ignore[attr-defined]
    assert preference_loss(replace(spec, loss="ipo", beta=0.3)).tau == 0.3  # type: ignore[attr-defined]
