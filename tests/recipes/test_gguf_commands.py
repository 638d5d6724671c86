"""Commands on a GGUF file: what `export` wrote is read back bit by bit, used, imported, trained and exported again."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from export_run import TEXT, export_run

import underhood
from text.mistral_pieces import mistral
from tiny_gguf import write_tiny_llama
from underhood.cli.main import main
from underhood.core.checkpoint import module_tensors
from underhood.core.errors import UserError
from underhood.infer.engine_spec import EngineSpec
from underhood.models.gguf_reader import read_metadata
from underhood.recipes.export.export import export
from underhood.web.registry import ModelRegistry

INSTRUCT = "{{ bos_token }}{% for message in messages %}[INST] {{ message.content }} [/INST]{% endfor %}"
"""A chat template of the first Mistral's kind, for one turn."""
GREEDY = ["The list", "--max-tokens", "8", "--temperature", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(tmp_path_factory.mktemp("gguf") / "run")


@pytest.fixture(scope="module")
def file(run: Path) -> Path:
    return export(run, "gguf", dtype="f32", out=run.parent / "model.gguf").path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_own_f32_export_reads_back_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    run = export_run(tmp_path / "run", tied=tied)
    ours, back = underhood.load(run), underhood.load(export(run, "gguf", dtype="f32").path)
    assert back.spec.tied is tied
    expected, actual = module_tensors(ours.model), module_tensors(back.model)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    tokens = torch.arange(1, 40)
    assert torch.equal(ours(tokens), back(tokens))
    for text in TEXT:
        assert back.tokenizer.encode(text) == ours.tokenizer.encode(text)
        assert back.tokenizer.decode(ours.tokenizer.encode(text)) == text
    assert back.chats
    assert set(ours.stop_ids) <= set(back.stop_ids)


def test_answers_of_the_file_match_those_of_the_run(run: Path, file: Path) -> None:
    answers = [underhood.load(model).chat("What is a list?", max_tokens=12, temperature=0) for model in (file, run)]
    assert answers[0] == answers[1]
    assert answers[0]


def test_import_check_says_what_is_in_the_file(
    file: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "import", str(file), "--check")
    assert "family     qwen3" in text
    assert "weights    36 tensors: 36 in F32; every value is exact in float32" in text
    quantised = export(run, "gguf", dtype="q8_0", out=tmp_path / "q8.gguf").path
    text = said(capsys, "import", str(quantised), "--check")
    assert "weights    36 tensors: 23 in Q8_0, 13 in F32; every value is exact in float32" in text


def test_imported_file_becomes_a_run_that_writes_the_same_and_is_imported_no_second_time(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "mine"
    said(capsys, "import", str(file), "--out", str(out))
    assert said(capsys, "generate", str(out), *GREEDY) == said(capsys, "generate", str(file), *GREEDY)
    direct, imported = underhood.load(file), underhood.load(out)
    assert imported.roles == direct.roles
    assert imported.chats
    assert imported.stop_ids == direct.stop_ids
    assert read_metadata(out / "tokenizer.gguf") == read_metadata(file)
    assert (out / "tokenizer.gguf").stat().st_size < file.stat().st_size / 10
    assert main(["import", str(file), "--out", str(out)]) == 2


def test_export_of_the_file_opens_in_transformers_and_here(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    out = tmp_path / "hf"
    said(capsys, "export", str(file), "--format", "hf", "--out", str(out))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    ours, back = underhood.load(file), underhood.load(out)
    tokens = torch.arange(1, 30)[None]
    with torch.no_grad():
        assert torch.allclose(theirs(tokens).logits, ours(tokens), atol=1e-4, rtol=1e-4)
    assert torch.equal(back(tokens), ours(tokens))
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.encode(TEXT[0]) == ours.tokenizer.encode(TEXT[0])
    messages = [{"role": "user", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.template is not None
    rendered = ours.template.render(ours.tokenizer, messages, add_generation_prompt=True)  # type: ignore[arg-type]
    assert tokenizer.encode(prompt, add_special_tokens=False) == list(rendered.ids)


def test_export_of_a_sentencepiece_file_and_its_runs_opens_in_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokenizer, which GGUF holds as scored pieces, becomes a tokenizer.json with the same ids."""
    import transformers

    file = write_tiny_llama(tmp_path / "pieces.gguf", mistral(chat_template=INSTRUCT), 32_000)
    said(capsys, "import", str(file), "--out", str(tmp_path / "run"))
    ours = underhood.load(file)
    messages = [{"role": "user", "content": "What is  a list?"}]
    assert ours.template is not None
    rendered = list(ours.template.render(ours.tokenizer, messages, add_generation_prompt=True).ids)  # type: ignore[arg-type]
    for model in (file, tmp_path / "run"):
        out = tmp_path / f"{model.name}-hf"
        said(capsys, "export", str(model), "--out", str(out))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        for text in TEXT:
            assert tokenizer.encode(text) == ours.prompt_ids(text)
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert tokenizer.encode(prompt, add_special_tokens=False) == rendered
        tokens = torch.tensor([rendered])
        with torch.no_grad():
            logits = ours(tokens)
            assert torch.allclose(theirs(tokens).logits, logits, atol=1e-4 * logits.abs().max().item(), rtol=1e-4)
        back = underhood.load(out)
        weights = module_tensors(ours.model)
        assert all(torch.equal(weights[name], tensor) for name, tensor in module_tensors(back.model).items())
        assert back.template is not None
        assert list(back.template.render(back.tokenizer, messages, add_generation_prompt=True).ids) == rendered  # type: ignore[arg-type]
        assert back.stop_ids == ours.stop_ids


def test_finetune_of_the_file_leaves_a_run_with_its_tokenizer(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "tuned"
    turns = [{"role": "user", "content": "What is a list?"}, {"role": "assistant", "content": "A list holds items."}]
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    options = ["--steps", "2", "--lora-rank", "2", "--context-length", "64"]
    said(capsys, "finetune", str(file), "--data", str(data), "--out", str(out), *options)
    before, after = underhood.load(file), underhood.load(out)
    assert after.tokenizer.encode(TEXT[1]) == before.tokenizer.encode(TEXT[1])
    assert after.chats
    assert after.roles == before.roles
    changed = [
        name
        for name, tensor in module_tensors(before.model).items()
        if not torch.equal(tensor, module_tensors(after.model)[name])
    ]
    assert any(".mixer." in name for name in changed)
    said(capsys, "generate", str(out), *GREEDY)


def test_server_opens_the_file_by_its_name(file: Path) -> None:
    registry = ModelRegistry.open([file], spec=EngineSpec(cache_bytes=4 << 20))
    try:
        assert [model.id for model in registry.served] == ["model"]
    finally:
        registry.close()


@pytest.mark.parametrize("command", ["generate", "chat", "serve", "import", "export", "finetune"])
@pytest.mark.parametrize("fault", ["missing", "cut", "foreign", "mamba"])
def test_broken_files_are_refused_in_a_sentence_with_exit_code_2(
    command: str, fault: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.gguf"
    if fault == "cut":
        broken.write_bytes(file.read_bytes()[:-5000])
    elif fault == "foreign":
        broken.write_text("no GGUF at all")
    elif fault == "mamba":
        writer = gguf.GGUFWriter(broken, "mamba")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
    training = ["--data", str(file), "--out", str(tmp_path / "out")]
    more = {"generate": ["x"], "finetune": training, "serve": ["--port", "0"]}
    assert main([command, str(broken), *more.get(command, [])]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    wanted = {"missing": "No such file", "cut": "ends within the tensor", "foreign": "is not a GGUF file"}
    assert wanted.get(fault, "architecture that can't be read") in " ".join(message.split())
    assert {path.name for path in tmp_path.iterdir()} <= {"broken.gguf", "out"}


def test_stage_of_a_file_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="is a published model and has no stages"):
        underhood.load(file, "base")
