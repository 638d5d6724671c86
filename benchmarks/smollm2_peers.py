"""The peers of `bench_smollm2`: llama.cpp (xllamacpp's prebuilt wheel) and transformers, with the same GGUF file.

llama.cpp runs in a process of its own and reports its own times, without the way there and back. The rest of this file
is what fresh processes run to their first token.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter


class LlamaCpp:
    """A llama.cpp server with one model, in a process of its own."""

    def __init__(self, path: Path, threads: int):
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(other, path, threads), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def complete(self, prompt: Sequence[int], count: int) -> dict[str, Any]:
        """Continues token ids greedily; the server's report."""
        self.pipe.send((list(prompt), count))
        return self.pipe.recv()

    def prefill_seconds(self, prompt: Sequence[int]) -> float:
        timings = self.complete(prompt, 1)["timings"]
        assert timings["prompt_n"] == len(prompt)
        return timings["prompt_ms"] / 1000

    def decode_seconds(self, prompt: Sequence[int], count: int) -> float:
        """Seconds per token after the first."""
        timings = self.complete(prompt, count)["timings"]
        assert timings["predicted_n"] == count
        return timings["predicted_ms"] / 1000 / count

    def close(self) -> None:
        self.process.terminate()


def _serve(pipe: Any, path: Path, threads: int) -> None:
    server = _server(path, threads)
    pipe.send("ready")
    while True:
        try:
            prompt, count = pipe.recv()
        except EOFError:
            return
        pipe.send(_complete(server, prompt, count))


def _server(path: Path, threads: int) -> Any:
    xllamacpp: Any = importlib.import_module("xllamacpp")
    silence_standard_error()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = 1_024, 512, 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def _complete(server: Any, prompt: Sequence[int] | str, count: int) -> dict[str, Any]:
    request = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    request["return_tokens"] = True
    answer = server.handle_completions(request)
    return json.loads(answer) if isinstance(answer, str) else answer


def silence_standard_error() -> None:
    """llama.cpp writes its log there, whatever it is told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def write_q8_0(source: Path, target: Path) -> None:
    """The same model with all its matrices in Q8_0."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = GGMLQuantizationType.Q8_0 if len(tensor.shape) > 1 else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class TokenClock:
    """A streamer for transformers' `generate`: when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:  # the prompt first, then each token
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def first_token(side: str, path: str, prompt: str, threads: int) -> None:
    """What a fresh process does up to its first token; prints it, and how long single steps took."""
    if side == "load":  # ours, without the first token
        from underhood.infer.packed_loading import load_for_inference

        load_for_inference(path)
        print("loaded", flush=True)
    elif side == "transformers":
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        start = time.perf_counter()
        with torch.inference_mode():
            token = model(input_ids=ids, logits_to_keep=1).logits[0, -1].argmax()
        print(f"prefill {time.perf_counter() - start:.4f} {tokenizer.decode(token)!r}", flush=True)
    else:
        answer = _complete(_server(Path(path), threads), prompt, 1)
        print(repr(answer["choices"][0]["text"]), flush=True)


if __name__ == "__main__":
    first_token(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    os._exit(0)
