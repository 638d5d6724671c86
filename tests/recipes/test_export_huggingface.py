"""What `underhood export --format hf` writes, opened by transformers."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_run import TEXT, export_run, model_of, save_run, spec_of
from safetensors.torch import load_file

import underhood.recipes.export.huggingface as huggingface
from text.nasty import NASTY
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.infer.importing import import_run
from underhood.infer.load import LoadedModel, load
from underhood.infer.sample import GREEDY
from underhood.nn.attention import AttentionSpec
from underhood.recipes.export.export import export
from underhood.text.bpe import train_bpe
from underhood.text.characters import CharacterTokenizer
from underhood.text.chat import CHATML

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a list? <|im_end|>"},
    {"role": "assistant", "content": "  A mutable sequence."},
    {"role": "user", "content": "And 日本語 🙂?"},
]


def in_transformers(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def largest_difference(loaded: LoadedModel, theirs) -> float:
    """Of the logits on random tokens, relative to the largest."""
    tokens_BT = torch.randint(loaded.spec.vocab_size, (2, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours_BTV, theirs_BTV = loaded.model(tokens_BT), theirs(tokens_BT).logits
    return float((ours_BTV - theirs_BTV).abs().max() / ours_BTV.abs().max())


@pytest.mark.parametrize("tied", [False, True])
def test_exported_folder_gives_our_logits_and_greedy_text_matches_transformers(tmp_path: Path, tied: bool):
    run = export_run(tmp_path / "run", tied=tied)
    made = export(run)
    loaded = load(run)
    theirs, _ = in_transformers(made.path)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert largest_difference(loaded, theirs) < 1e-5
    prompts = [loaded.prompt_ids(text) for text in ("The list", "", "Naïve 日本")]
    for ours, prompt in zip(
        loaded.complete(["The list", "", "Naïve 日本"], max_tokens=64, sampling=GREEDY), prompts, strict=True
    ):
        row = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)[0, len(prompt) :].tolist()
        stopped = row[:-1] if row[-1] in loaded.stop_ids else row
        assert stopped == ours.ids
        assert (row[-1] if stopped != row else None) == ours.stop_id


@pytest.mark.parametrize(
    ("key", "value"), [("rope_theta", 10_000.0), ("rms_norm_eps", 1e-6), ("num_key_value_heads", 4), ("head_dim", 16)]
)
def test_logits_rest_on_every_number_in_the_config(tmp_path: Path, monkeypatch, key: str, value: float):
    """Ablation: with one number of the config wrong, the same weights give another model, or none at all."""
    run = export_run(tmp_path / "run")
    whole = huggingface.to_huggingface
    monkeypatch.setattr(huggingface, "to_huggingface", lambda spec: whole(spec) | {key: value})
    made = export(run)
    if key in ("num_key_value_heads", "head_dim"):
        with pytest.raises(RuntimeError, match="size"):
            in_transformers(made.path)
    else:
        assert largest_difference(load(run), in_transformers(made.path)[0]) > 1e-4


def test_exported_tokenizer_gives_our_ids_matches_transformers(tmp_path: Path):
    run = export_run(tmp_path / "run")
    loaded = load(run)
    _, theirs = in_transformers(export(run).path)
    for text in [*TEXT, *NASTY]:
        ours = loaded.tokenizer.encode(text)
        if not any(name in text for name in loaded.tokenizer.special):  # those transformers turns into the tokens
            assert theirs.encode(text) == ours
        assert theirs.decode(ours) == loaded.tokenizer.decode(ours)
    special = loaded.tokenizer.special
    assert len(theirs) == loaded.tokenizer.vocab_size
    assert theirs.bos_token_id == theirs.pad_token_id == special["<|endoftext|>"]
    assert theirs.eos_token_id == special["<|im_end|>"]
    assert theirs.model_max_length == loaded.spec.context_length


def test_exported_chat_template_gives_our_tokens_matches_transformers(tmp_path: Path):
    run = export_run(tmp_path / "run")
    loaded = load(run)
    _, theirs = in_transformers(export(run).path)
    chat = [message | {"content": message["content"].replace(" <|im_end|>", "")} for message in CHAT]
    actual = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert actual == CHATML.render(loaded.tokenizer, chat, add_generation_prompt=True).ids


def test_base_model_is_exported_without_chat_template_and_ends_with_its_document(tmp_path: Path):
    run = export_run(tmp_path / "run")
    _, tokenizer = in_transformers(export(run, stage="base").path)
    assert tokenizer.chat_template is None
    assert tokenizer.eos_token == "<|endoftext|>"


def test_large_weights_are_cut_into_shards_that_open_as_one(tmp_path: Path):
    run = export_run(tmp_path / "run")
    made = export(run, shard_bytes=100_000)
    loaded = load(run)
    shards = sorted(made.path.glob("*.safetensors"))
    index = json.loads((made.path / "model.safetensors.index.json").read_text())
    assert len(shards) > 3
    assert all(shard.stat().st_size < 110_000 for shard in shards)
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in loaded.model.parameters())
    theirs, _ = in_transformers(made.path)
    assert largest_difference(loaded, theirs) < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_holds_every_weight_rounded_once(tmp_path: Path, dtype: str):
    run = export_run(tmp_path / "run")
    made = export(run, dtype={"float16": "f16", "bfloat16": "bfloat16"}[dtype])
    kind = getattr(torch, dtype)
    held = load_file(made.path / "model.safetensors")
    whole = load_file(export(run, out=tmp_path / "whole").path / "model.safetensors")
    assert held.keys() == whole.keys()
    assert all(held[name].dtype == kind and torch.equal(held[name], whole[name].to(kind)) for name in whole)
    theirs, _ = in_transformers(made.path)
    assert theirs.dtype == kind


def test_model_of_another_shape_is_refused_and_leaves_nothing(tmp_path: Path):
    tokenizer = load(export_run(tmp_path / "run")).tokenizer
    spec = spec_of(tokenizer.vocab_size)
    [block] = spec.blocks
    assert isinstance(block.mixer, AttentionSpec)
    other = replace(spec, blocks=(replace(block, mixer=replace(block.mixer, window=7, bias=True)),))
    run = save_run(tmp_path / "other", model_of(other), tokenizer, ("base",))
    for format, message in (("hf", "no form in transformers; expected a model like qwen3"), ("gguf", "Qwen3 shape")):
        with pytest.raises(UserError, match=message):
            export(run, format)
    assert not (run / "export").exists()


def test_model_made_here_in_another_familys_shape_is_exported_as_that_family(tmp_path: Path):
    tokenizer = load(export_run(tmp_path / "run")).tokenizer
    spec = spec_of(tokenizer.vocab_size)
    [block] = spec.blocks
    assert isinstance(block.mixer, AttentionSpec)
    plain = replace(spec, blocks=(replace(block, mixer=replace(block.mixer, qk_norm=None)),))
    run = save_run(tmp_path / "llama", model_of(plain), tokenizer, ("base",))
    made = export(run)
    theirs, _ = in_transformers(made.path)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert largest_difference(load(run), theirs) < 1e-5
    assert "in the shape of llama" in made.card.read_text(encoding="utf-8")
    read_back = load(export(run, "gguf", dtype="f32").path)
    tokens_BT = torch.randint(plain.vocab_size, (2, 90), generator=torch.Generator().manual_seed(1))
    assert torch.equal(read_back.model(tokens_BT), load(run).model(tokens_BT))
    windowed = replace(spec, blocks=(replace(block, mixer=replace(block.mixer, window=7)),))
    with pytest.raises(UserError, match="no GGUF form"):
        export(save_run(tmp_path / "windowed", model_of(windowed), tokenizer, ("base",)), "gguf")


def test_character_model_is_refused(tmp_path: Path):
    loaded = replace(load(export_run(tmp_path / "run")), tokenizer=CharacterTokenizer("abc"))
    for format in ("hf", "gguf"):
        with pytest.raises(UserError, match=r"expected (a )?(byte-level )?BPE.*, got CharacterTokenizer"):
            export(loaded, format)


def test_full_disk_leaves_the_earlier_export_and_nothing_else(tmp_path: Path, monkeypatch):
    run = export_run(tmp_path / "run")
    made = export(run)
    before = {file.name: file.read_bytes() for file in made.path.iterdir()}

    def full(*args, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface, "save_file", full)
    with pytest.raises(UserError, match="the disk is full"):
        export(run, dtype="float16", replace=True)
    assert {file.name: file.read_bytes() for file in made.path.iterdir()} == before
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]


def test_earlier_export_is_replaced_only_when_asked(tmp_path: Path):
    run = export_run(tmp_path / "run")
    out = tmp_path / "mine"
    out.mkdir()
    export(run, out=out)  # an empty folder is as good as none
    (out / "old.txt").write_text("old")
    with pytest.raises(UserError, match="is there already"):
        export(run, out=out)
    assert (out / "old.txt").exists()
    export(run, out=out, dtype="bfloat16", replace=True)
    assert not (out / "old.txt").exists()
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    with pytest.raises(UserError, match="is a folder"):
        export(run, "gguf", out=out, replace=True)


def test_export_command_prints_the_place_and_names_mistakes(tmp_path: Path, capsys):
    run = export_run(tmp_path / "run")
    assert main(["export", str(run), "--stage", "base"]) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "export" / "base-hf"
    for words, output in [
        (["--dtype", "q8_0"], "Use --format gguf for q8_0"),
        (["--format", "gguf", "--dtype", "q8"], "Did you mean q8_0"),
        (["--stage", "dpo"], "has no dpo model"),
    ]:
        assert main(["export", str(run), *words]) == 2
        error = capsys.readouterr().err
        assert output in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("way", ["folder", "run"])
def test_published_model_goes_back_out_as_it_came_with_its_weights_of_now(tmp_path: Path, way: str):
    """GPT-2 has every twist: fused and transposed projections, biases, learned positions, tied embeddings."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=330, n_positions=96, n_embd=32, n_layer=2, n_head=4)).eval()
    published = tmp_path / "published"
    theirs.save_pretrained(published)
    train_bpe(TEXT, vocab_size=330).save(published / "tokenizer.json")
    source = published if way == "folder" else import_run(load(published), "here", tmp_path / "run")
    loaded = load(source)
    with torch.no_grad():
        loaded.model.blocks[1].mixer.value.weight.mul_(3.0)
    made = export(loaded, out=tmp_path / "out")
    back = GPT2LMHeadModel.from_pretrained(made.path).eval()
    assert largest_difference(loaded, back) < 1e-5
    assert largest_difference(loaded, theirs) > 1e-3
    ours, original = (json.loads((folder / "config.json").read_text()) for folder in (made.path, published))
    assert {key: ours[key] for key in original if key != "dtype"} == {k: v for k, v in original.items() if k != "dtype"}
    assert (made.path / "tokenizer.json").read_bytes() == (published / "tokenizer.json").read_bytes()
    assert "of the family gpt2. It was published by others" in made.card.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no GGUF form"):
        export(loaded, "gguf", out=tmp_path / "out.gguf")
