"""A published model becomes a run: its weights as a checkpoint, its tokenizer and chat template beside it."""

from __future__ import annotations

import json
import math
import os
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.config import to_json
from underhood.core.errors import UserError
from underhood.core.files import sha256_of, storage_errors, write_text
from underhood.infer.cache import dtype_of
from underhood.infer.load import IMPORTED, PUBLISHED, LoadedModel
from underhood.infer.tokenizer_files import copy_tokenizer_files
from underhood.models.base import parameter_count
from underhood.models.config_keys import UnusedKey
from underhood.models.gguf_reader import read_gguf
from underhood.models.gguf_weights import exact_dtype, summary_of_types
from underhood.models.hub_weights import read_config
from underhood.models.huggingface import family_name, unused_config_keys
from underhood.models.presets import active_parameter_count
from underhood.models.published import published_config


@dataclass(frozen=True)
class Facts:
    """What a published model is.

    Attributes:
        family: its ``model_type``.
        parameters: in all.
        active: as many as one token uses (fewer only in mixtures of experts).
        context: tokens.
        dtype: of the weights in its files, e.g. "bfloat16".
        chats: whether it has a chat template.
        tokenizer: the class that reads its tokenizer, or what is wrong with it.
    """

    family: str
    parameters: int
    active: int
    context_length: int
    dtype: str
    chats: bool
    tokenizer: str

    def text(self) -> str:
        """The facts in a few lines."""
        count = f"{self.parameters:,} parameters"
        if self.active != self.parameters:
            count += f", {self.active:,} of them used per token"
        return "\n".join(
            [
                f"family     {self.family}",
                f"size       {count}, {self.dtype}",
                f"context    {self.context_length:,} tokens",
                f"tokenizer  {self.tokenizer}",
                f"chat       {'has a template' if self.chats else 'has no template: it continues text'}",
            ]
        )


def facts_of(loaded: LoadedModel) -> Facts:
    """The facts of a model that was opened from a Hugging Face folder or a GGUF file in its own type."""
    missing = getattr(loaded.tokenizer, "error", None)
    kind = str(missing) if missing else f"{loaded.tokenizer.vocab_size:,} tokens"
    return Facts(
        family=family_name(published_config(loaded.path)),
        parameters=parameter_count(loaded.model),
        active=active_parameter_count(loaded.model),
        context_length=loaded.decoder.context_length,
        dtype=str(dtype_of(loaded.model)).removeprefix("torch."),
        chats=loaded.chats,
        tokenizer=kind,
    )


def unused_keys_text(folder: Path) -> str:
    """The keys of a folder's ``config.json`` that decided nothing, in groups by why they could be passed over."""
    unused = unused_config_keys(read_config(folder), where=str(folder / "config.json"))
    groups = [
        ("unused", [key.key for key in unused if key.why == "harmless"]),
        ("empty", [_key_and_value(key) for key in unused if key.why == "empty"]),
        ("private", [_key_and_value(key) for key in unused if key.why == "private"]),
        ("ignored", [_key_and_value(key) for key in unused if key.why == "ignored"]),
    ]
    return "\n".join(
        textwrap.fill(f"{name:<11}{', '.join(keys)}", 80, subsequent_indent=" " * 11, break_on_hyphens=False)
        for name, keys in groups
        if keys
    )


def weights_text(file: Path) -> str:
    """The types of a GGUF file's tensors, and which type holds all of their values exactly."""
    contents = read_gguf(file)
    types = [f"{tensors} in {name}" for name, (tensors, _) in summary_of_types(contents).items()]
    exact = str(exact_dtype(contents)).removeprefix("torch.")
    text = f"{'weights':<11}{len(contents.tensors)} tensors: {', '.join(types)}; every value is exact in {exact}"
    return textwrap.fill(text, 80, subsequent_indent=" " * 11, break_on_hyphens=False)


def _key_and_value(unused: UnusedKey) -> str:
    value = json.dumps(unused.value)
    return f"{unused.key} {value if len(value) <= 24 else value[:21] + '…'}"


@torch.inference_mode()
def verify(loaded: LoadedModel) -> float:
    """Reads a few tokens; the mean surprise in nats, for the curious.

    Raises:
        UserError: a score is not a finite number, so the weights can't be right.
    """
    tokens = torch.arange(1, min(17, loaded.model.vocab_size))
    scores = loaded(tokens)[0].float()
    if not scores.isfinite().all():
        raise UserError(f"the model in {loaded.path} gives logits that are not finite", fix="Download it again")
    surprise = -scores[:-1].log_softmax(dim=-1).gather(-1, tokens[1:, None].to(scores.device)).mean().item()
    assert math.isfinite(surprise)
    return surprise


def import_run(loaded: LoadedModel, source: str, out: Path) -> Path:
    """Writes an opened published model as a run, whole or not at all.

    Args:
        loaded: opened from a Hugging Face folder or a GGUF file, in the type in which it shall be stored.
        source: where it came from, for the record.
        out: the run's folder to make.

    Raises:
        UserError: there is something at `out` already, or it can't be written.
    """
    if out.exists():
        raise UserError(f"{out} is there already", fix="Choose another --out")
    making = out.with_name(f".making-{out.name}")
    with storage_errors(out, "Nothing was left behind; free some space or choose another --out"):
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        try:
            copy_tokenizer_files(loaded.path, making)
            config = published_config(loaded.path)
            if not (making / "generation_config.json").exists() and "eos_token_id" in config:
                ends = {"eos_token_id": config["eos_token_id"]}
                write_text(making / "generation_config.json", json.dumps(ends) + "\n")
            about = {"source": source, "config": config, "facts": facts_of(loaded).__dict__}
            write_text(making / IMPORTED, json.dumps(about, indent=1) + "\n")
            tokenizer = making / "tokenizer.json"
            digest = sha256_of(tokenizer) if tokenizer.exists() else None
            state = {"spec": to_json(loaded.spec, tagged=True), "tokenizer": digest}
            write_checkpoint(making / "checkpoints" / PUBLISHED, 0, {"model": module_tensors(loaded.model)}, state)
            os.rename(making, out)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return out
