"""An answer's tokens, their probabilities and their alternatives, against the model itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import make_run

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.web.checkpoint_samples import CheckpointSamples
from underhood.web.token_view import answer_ids, ids_by_bytes, prompt_of, score, token_facts

ASK = [{"role": "user", "content": "What is a list?"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return load(run)


def test_token_view_keeps_the_tokens_that_were_written(loaded: LoadedModel) -> None:
    """One text, two ways to cut it; without the pieces (the ablation) the way it was written is lost."""
    tokenizer = loaded.tokenizer
    letters = [token for letter in "list" for token in tokenizer.encode(letter)]
    known = ids_by_bytes(tokenizer)
    chunks = [tokenizer.decode_bytes([token]) for token in letters]
    assert answer_ids(tokenizer, known, "list", chunks) == (letters, True)
    again, exact = answer_ids(tokenizer, known, "list", None)
    assert not exact
    assert again != letters
    assert tokenizer.decode(again) == "list"
    assert answer_ids(tokenizer, known, "list", [b"no such token"]) == (again, False)


def test_token_view_scores_match_a_forward_pass(loaded: LoadedModel) -> None:
    prompt = prompt_of(loaded, ASK, None)
    answer = loaded.tokenizer.encode("The items of a list 🙂")
    rows = score(loaded, prompt, answer, top=5)
    logprobs_TV = loaded([*prompt, *answer])[0].log_softmax(dim=-1)[len(prompt) - 1 : -1]
    for row, token, at_V in zip(rows, answer, logprobs_TV, strict=True):
        assert row["id"] == token
        assert row["logprob"] == pytest.approx(float(at_V[token]), abs=1e-4)
        assert row["rank"] == 1 + int((at_V > at_V[token]).sum())
        best = torch.topk(at_V, 5)
        assert [item["id"] for item in row["top"]] == best.indices.tolist()
        assert [item["logprob"] for item in row["top"]] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert b"".join(bytes.fromhex(row["hex"]) for row in rows).decode() == "The items of a list 🙂"


def test_token_view_refuses_what_the_context_cannot_hold(loaded: LoadedModel) -> None:
    assert len(score(loaded, [1] * 90, [2] * 7, top=1)) == 7  # the last token is only looked at, not read
    with pytest.raises(UserError, match="too long"):
        score(loaded, [1] * 90, [2] * 8)
    assert score(loaded, [1, 2], []) == []


def test_token_view_shows_every_token(loaded: LoadedModel) -> None:
    tokenizer = loaded.tokenizer
    for token in range(tokenizer.vocab_size):
        facts = token_facts(tokenizer, token)
        assert facts["shown"].isprintable()
        assert facts["shown"].strip()
        assert facts["special"] == (token in tokenizer.special.values())


def test_checkpoint_samples_match_chat_and_generate_and_are_remembered(run: Path) -> None:
    samples = CheckpointSamples()
    folder = run / "checkpoints"
    output = samples.answer(folder / "sft" / "step-00000010", "What is a list?", max_tokens=12)
    assert output["text"] == load(run, "sft").chat("What is a list?", max_tokens=12, temperature=0.0)
    written = samples.answer(folder / "base" / "step-00000010", "The list", max_tokens=12)
    assert written["text"] == load(run, "base").generate("The list", max_tokens=12, temperature=0.0)
    assert samples.answer(folder / "sft" / "step-00000010", "What is a list?", max_tokens=12) is output


def test_checkpoint_samples_refuse_what_memory_cannot_hold(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        available = 1000

    monkeypatch.setattr("underhood.web.checkpoint_samples.psutil.virtual_memory", Full)
    with pytest.raises(UserError, match="too large"):
        CheckpointSamples().answer(run / "checkpoints" / "sft" / "step-00000010", "x")
