"""`underhood.load`, and conversations with what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import TEXT, make_run, tiny_model, tiny_tokenizer

import underhood
from underhood.core.errors import UserError
from underhood.infer.chat import ChatSession
from underhood.infer.load import LoadedModel
from underhood.infer.sample import SamplingSpec
from underhood.text.bpe import train_bpe
from underhood.text.chat import CHATML


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("place") / "runs" / "demo")


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedModel:
    return underhood.load(run)


def test_load_gives_the_weights_that_were_saved(run: Path, loaded: LoadedModel) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    for seed, stage in enumerate(("base", "sft", "dpo")):
        actual = underhood.load(run, stage=stage)
        assert actual.stage == stage
        assert torch.equal(actual.model(tokens), tiny_model(tiny_tokenizer(), seed)(tokens))
    assert loaded.stage == "dpo"
    assert (loaded.tokenizer, loaded.spec) == (tiny_tokenizer(), loaded.model.spec)
    assert not loaded.model.training
    assert underhood.load(str(loaded.path.parents[1] / "sft" / "step-00000010")).stage == "sft"


def test_loaded_shows_itself_in_one_line(loaded: LoadedModel) -> None:
    assert repr(loaded).startswith("<dpo model of ")
    assert repr(loaded).endswith("runs/demo: 12,816 parameters, vocabulary 277, context 96, step 10>")
    assert "\n" not in repr(loaded)


def test_import_underhood_loads_no_torch() -> None:
    code = "import sys, underhood; assert 'load' in underhood.__all__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        underhood.lod  # noqa: B018


def test_generate_stream_and_complete_agree(loaded: LoadedModel) -> None:
    text = loaded.generate("The list", max_tokens=30, seed=3, temperature=1.2)
    assert text == "".join(loaded.stream("The list", max_tokens=30, seed=3, temperature=1.2))
    sampling = SamplingSpec(temperature=1.2, min_p=0.05, seed=3)
    [done] = loaded.complete(["The list"], max_tokens=30, sampling=sampling)
    assert text == loaded.tokenizer.decode(done.ids)
    assert text != loaded.generate("The list", max_tokens=30, seed=4, temperature=1.2)
    assert isinstance(loaded.generate(), str)


def test_prompt_opens_as_documents_do_in_training(loaded: LoadedModel) -> None:
    assert loaded.prompt_ids("The")[0] == loaded.tokenizer.special["<|endoftext|>"]
    assert loaded.prompt_ids("") == [loaded.tokenizer.special["<|endoftext|>"]]
    assert loaded.prompt_ids("<|im_end|>")[1:] == loaded.tokenizer.encode("<|im_end|>")


def test_chat_matches_generating_from_the_template(loaded: LoadedModel) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "A list?"},
        {"role": "assistant", "content": "Items."},
        {"role": "user", "content": "And?"},
    ]
    from underhood.infer.generate import generate

    ids = CHATML.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
    stop_ids = CHATML.stop_ids(loaded.tokenizer)
    [done] = generate(loaded.model, [ids], max_new_tokens=9, stop_ids=stop_ids)
    assert loaded.chat(messages, max_tokens=9, temperature=0) == loaded.tokenizer.decode(done.ids)
    assert loaded.chat(messages[1:], system="Be short.", max_tokens=9, temperature=0) == loaded.chat(
        messages, max_tokens=9, temperature=0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda loaded, run: underhood.load(run.parent / "dmo"), r"there is no run at .*dmo. Did you mean .*demo"),
        (lambda loaded, run: underhood.load(run.parent / "zzzzz"), r"There are .*demo"),
        (
            lambda loaded, run: underhood.load(run, "dop"),
            r"no dop model; expected base or sft or dpo. Did you mean dpo",
        ),
        (
            lambda loaded, run: loaded.generate("x", temprature=1),
            "unknown sampling option 'temprature'. Did you mean temp",
        ),
        (lambda loaded, run: loaded.generate("x", top_p=2), "top_p is out of range"),
        (lambda loaded, run: loaded.generate("x" * 500), "the prompt is longer than the model's context"),
        (lambda loaded, run: underhood.load(run, "base").chat("x"), "has not learnt to chat. Load the stage 'dpo'"),
        (lambda loaded, run: loaded.chat([]), "nothing to answer"),
        (lambda loaded, run: loaded.chat([{"role": "assistant", "content": "x"}]), "ends with the user's message"),
    ],
)
def test_mistakes_are_named(loaded: LoadedModel, run: Path, call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(loaded, run)


def test_load_without_any_run_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no run at nothing. Make one with underhood build"):
        underhood.load("nothing")
    unfinished = tmp_path / "young"
    unfinished.mkdir()
    (unfinished / "run.toml").touch()
    with pytest.raises(UserError, match=r"young has no model yet. Go on with underhood build --out young --resume"):
        underhood.load("young")


def test_load_names_a_damaged_file_and_a_foreign_tokenizer(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", stages=("base",))
    train_bpe(TEXT[:1], vocab_size=280).save(run / "tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer.json is not the tokenizer that .* was trained with"):
        underhood.load(run)
    weights = run / "checkpoints/base/step-00000010/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        underhood.load(run)


# Conversations


def test_conversation_reads_every_turn_once(loaded: LoadedModel) -> None:
    model = tiny_model(tiny_tokenizer(), seed=0, context=512)
    talk = ChatSession(model, loaded.tokenizer, system="Be short.")
    for turn in range(3):
        prompt_ids = [*talk.messages, {"role": "user", "content": "A list?"}]
        ids = CHATML.render(talk.tokenizer, prompt_ids, add_generation_prompt=True).ids
        answer = "".join(talk.reply("A list?", max_new_tokens=4))
        assert talk.messages == [*prompt_ids, {"role": "assistant", "content": answer}]
        fresh = ChatSession(model, loaded.tokenizer)
        fresh.messages = prompt_ids[:-1]
        assert answer == "".join(fresh.reply("A list?", max_new_tokens=4))
        if turn:  # what is new: the question, the markers around it, and what the answer's own tokens do not spell
            assert 0 < len(ids) - talk.session.reused < 45
    assert len(ids) > 90
    assert [message["role"] for message in talk.messages] == ["system", *("user", "assistant") * 3]
    talk.reset("Else.")
    assert talk.messages == [{"role": "system", "content": "Else."}]
    assert talk.system == "Else."


def test_conversation_turns_draw_differently_under_one_seed(loaded: LoadedModel) -> None:
    talk = loaded.conversation()
    requests = []
    write = talk.session.write
    talk.session.write = lambda *given, choice: requests.append(choice) or write(*given, choice=choice)
    first = [next(iter(talk.reply("A?", max_new_tokens=4, sampling=SamplingSpec(seed=1)))) for _ in range(2)]
    assert requests == [0, 1]
    assert first[0] == next(loaded.conversation().reply("A?", max_new_tokens=4, sampling=SamplingSpec(seed=1)))


def test_conversation_forgets_the_oldest_turns_but_not_the_system_message(loaded: LoadedModel) -> None:
    talk = loaded.conversation("Sys.")
    for turn in range(6):
        "".join(talk.reply(f"turn {turn}", max_new_tokens=6))
    assert len(talk.messages) == 13
    assert talk.forgotten > 0
    assert talk.forgotten % 2 == 0
    seen = [*talk.messages[:1], *talk.messages[1 + talk.forgotten : -1]]
    ids = CHATML.render(talk.tokenizer, seen, add_generation_prompt=True).ids
    assert len(ids) <= 96 - 6
    longer = [*talk.messages[:1], *talk.messages[talk.forgotten - 1 : -1]]
    assert len(CHATML.render(talk.tokenizer, longer, add_generation_prompt=True).ids) > 96 - 6
    before = list(talk.messages)
    with pytest.raises(UserError, match="the message is too long for the model; expected at most 90 tokens"):
        talk.reply("long " * 100, max_new_tokens=6)
    assert talk.messages == before


def test_conversation_keeps_what_was_said_before_an_interruption(loaded: LoadedModel) -> None:
    talk = loaded.conversation()
    sampling = SamplingSpec(temperature=0)
    pieces = talk.reply("A list?", max_new_tokens=30, sampling=sampling)
    output = next(pieces) + next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == {"role": "assistant", "content": output}
    untouched = talk.reply("More?", max_new_tokens=30)
    untouched.close()  # type: ignore[attr-defined]
    assert len(talk.messages) == 2
