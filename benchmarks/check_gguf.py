"""Does llama.cpp open what `underhood export --format gguf` writes, and write the same text?

    python benchmarks/check_gguf.py --run runs/pydocs --out results/check_gguf

A run made by `underhood build` is exported in every stored type and opened in llama.cpp (the package xllamacpp). For
five prompts, 32 tokens are taken greedily on both sides and must be the same. f16 and q8_0 round the weights, and
llama.cpp rounds what is multiplied with them alike, so our model does both too (and `plain_same_continuations` says how
many texts are the same if it rounds the weights only). Also compared: token ids of prose, code and other alphabets, and
the log probability of every token that was written.

It ends with one JSON line and exits with 1 if anything disagrees.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import platform
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType

from underhood.core.checkpoint import module_tensors
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel, load
from underhood.models.gguf_file import gguf_name
from underhood.recipes.export.export import export

TOKENS = 32
QUESTIONS = [
    "What does `os.path.join` do?",
    "What is a generator?",
    "Write a sentence about dictionaries.",
]
TEXTS = ["The list", "\n\n    >>> import os\n"]
SPELLING = [
    "The quick brown fox jumps over 13 lazy dogs.",
    "def f(x):\n\treturn {'a': [1, 2, 3]}  # naïve café\n\n\n",
    "日本語のテキスト и русский текст, emoji 🙂👩‍👩‍👧 and\u00a0no-break",
    "   leading, trailing   ",
    "I'll say we're DON'T 12345678 $$$ ...!!!\r\n",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a run that underhood build made")
    parser.add_argument("--stage", help="base, sft or dpo; the last one if left out")
    parser.add_argument("--out", type=Path, help="folder for the result as a file")
    args = parser.parse_args()
    loaded = load(args.run, args.stage)
    prompts = [_chat(loaded, question) if loaded.chats else loaded.prompt_ids(question) for question in QUESTIONS]
    prompts += [loaded.prompt_ids(text) for text in TEXTS]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("f32", "f16", "q8_0"):
            file = Path(folder) / f"{dtype}.gguf"
            export(loaded, "gguf", dtype=dtype, out=file)
            rows.append({"dtype": dtype} | compare(load(args.run, args.stage), file, prompts))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    agree = all(row["same_continuations"] == len(prompts) and row["same_ids"] == len(SPELLING) for row in rows)
    report = {
        "check": "gguf",
        "agree": agree,
        "date": datetime.date.today().isoformat(),
        "run": str(args.run),
        "stage": loaded.stage,
        "width": loaded.spec.d_model,
        "layers": loaded.spec.layers,
        "vocab_size": loaded.spec.vocab_size,
        "prompts": len(prompts),
        "tokens": TOKENS,
        "types": rows,
        "machine": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in ("underhood", "torch", "gguf", "xllamacpp")},
    }
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        name = f"{report['date']}_cpu{torch.get_num_threads()}.json"
        (args.out / name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    return 0 if agree else 1


def compare(loaded: LoadedModel, file: Path, prompts: list[list[int]]) -> dict[str, Any]:
    """Our model, with the file's weights, beside llama.cpp with the same file."""
    _take_weights(loaded, file)
    start = time.perf_counter()
    theirs = LlamaCpp(file, loaded.decoder.context_length)
    ids = [theirs.tokenize(text) for text in SPELLING]
    same_ids = sum(actual == loaded.tokenizer.encode(text) for actual, text in zip(ids, SPELLING, strict=True))
    plain = generate(loaded.model, prompts, max_new_tokens=TOKENS, stop_ids=())
    _round_inputs(loaded, file)
    ours = generate(loaded.model, prompts, max_new_tokens=TOKENS, stop_ids=())
    same, alike, first, differences = 0, 0, [], []
    for prompt, completion, other in zip(prompts, ours, plain, strict=True):
        written, logs = theirs.write(prompt)
        count = len(written)  # llama.cpp stops at the end of a turn
        alike += written == other.ids[:count]
        same += written == completion.ids[:count]
        agree = next((n for n, (a, b) in enumerate(zip(written, completion.ids, strict=False)) if a != b), count)
        first.append(agree)
        if agree:
            difference = np.abs(np.array(logs[:agree]) - np.array(completion.logprobs[:agree]))
            differences += difference[~np.isnan(difference)].tolist()
    return {
        "bytes": file.stat().st_size,
        "same_continuations": same,
        "plain_same_continuations": alike,
        "same_tokens_before_any_difference": first,
        "worst_log_probability_difference": round(max(differences), 6) if differences else None,
        "same_ids": same_ids,
        "seconds": round(time.perf_counter() - start, 1),
    }


class LlamaCpp:
    """A file in llama.cpp, which xllamacpp serves."""

    def __init__(self, file: Path, context_length: int):
        library: Any = importlib.import_module("xllamacpp")
        params = library.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.verbosity, params.warmup = context_length, 1, -1, False
        params.no_extra_bufts = True  # its repacked matrices for AMX crash in the 8-bit product of so narrow a model
        # Left alone, llama.cpp keeps keys and values as f16, which moves log probabilities by 0.002.
        params.cache_type_k = params.cache_type_v = library.ggml_type.GGML_TYPE_F32
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            params.port = probe.getsockname()[1]
        self._server = library.Server(params)

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, special tokens spelled in it left as text."""
        return self._post("/tokenize", {"content": text, "parse_special": False, "add_special": False})["tokens"]

    def write(self, prompt: list[int]) -> tuple[list[int], list[float]]:
        """The likeliest tokens after a prompt, and their natural-log probabilities."""
        how = {"n_predict": TOKENS, "temperature": 0.0, "n_probs": 1, "cache_prompt": False, "return_tokens": True}
        answer = self._post("/completion", {"prompt": prompt} | how)
        written = answer["tokens"][: -1 if answer["stop_type"] == "eos" else None]
        told = answer["completion_probabilities"]
        # None is told of a token that ends inside a character: then nobody can say which token the others belong to.
        known = [token["id"] for token in told][: len(written)] == written
        logs = [token["logprob"] for token in told[: len(written)]] if known else [float("nan")] * len(written)
        return written, logs

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._server.listening_address + path, data, kind)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)


def _take_weights(loaded: LoadedModel, file: Path) -> None:
    """Puts what the file holds, rounded as it is, into our model."""
    held = {item.name: item for item in gguf.GGUFReader(file).tensors}
    for name, tensor in module_tensors(loaded.model).items():
        item = held[gguf_name(name)]
        values = gguf.dequantize(np.array(item.data), item.tensor_type)
        tensor.copy_(torch.from_numpy(values.reshape(tuple(tensor.shape)).copy()))


def _round_inputs(loaded: LoadedModel, file: Path) -> None:
    """Makes each linear layer round its input to the type that the file stores its weight in, as llama.cpp does."""
    held = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}
    for name, layer in loaded.model.named_modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        # A tied unembedding is stored once, as the embedding.
        kind = held.get(gguf_name(f"{name}.weight"), held["token_embd.weight"])

        def rounded(_: torch.nn.Module, inputs: tuple[torch.Tensor], kind: GGMLQuantizationType = kind) -> torch.Tensor:
            x = inputs[0].float().numpy()
            return torch.from_numpy(gguf.dequantize(gguf.quantize(x, kind), kind).reshape(x.shape).copy())

        layer.register_forward_pre_hook(rounded)


def _chat(loaded: LoadedModel, question: str) -> list[int]:
    from underhood.text.chat import CHATML

    messages = [{"role": "user", "content": question}]
    return CHATML.render(loaded.tokenizer, messages, add_generation_prompt=True).ids


if __name__ == "__main__":
    sys.exit(main())
