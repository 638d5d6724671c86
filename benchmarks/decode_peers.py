"""The peers of `bench_decode`: transformers' Llama and llama.cpp, with the weights of one of our decoders."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from underhood.models.decoder import Decoder
from underhood.models.gguf_file import gguf_name

try:
    import llama_cpp
except ImportError:  # the benchmark says so
    llama_cpp = None

_SILENT = None if llama_cpp is None else llama_cpp.llama_log_callback(lambda level, text, data: None)

Q8_0, Q4_0 = 7, 2
"""llama.cpp's numbers for files whose matrices are mostly of these kinds."""


def transformers_twin(model: Decoder, shape: dict[str, Any]) -> Any:
    """transformers' Llama with our weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{name: value for name, value in shape.items() if name != "model_type"})
    twin = LlamaForCausalLM(config).eval()
    twin.generation_config.eos_token_id = None
    names = {
        "blocks.": "model.layers.",
        "mixer_norm": "input_layernorm",
        "feedforward_norm": "post_attention_layernorm",
    }
    names |= {"mixer.query": "self_attn.q_proj", "mixer.key": "self_attn.k_proj", "mixer.value": "self_attn.v_proj"}
    names |= {"mixer.output": "self_attn.o_proj", "feedforward.gate": "mlp.gate_proj", "feedforward.up": "mlp.up_proj"}
    names |= {"feedforward.down": "mlp.down_proj", "unembed": "lm_head"}
    names |= {"embed.": "model.embed_tokens.", "blocks.": "model.layers."}
    state = {}
    for ours, tensor in model.state_dict().items():
        name = "model.norm.weight" if ours == "norm.weight" else ours
        for old, new in names.items():
            name = name.replace(old, new) if new not in name else name
        state[name] = tensor
    twin.load_state_dict(state)
    return twin.requires_grad_(False)


def write_ggufs(model: Decoder, shape: dict[str, Any], folder: Path) -> dict[str, Path]:
    """The model as llama.cpp's files f32, q8_0 and q4_0; none where llama.cpp is missing."""
    if llama_cpp is None:
        return {}
    paths = {kind: folder / f"{kind}.gguf" for kind in ("f32", "q8_0", "q4_0")}
    writer = gguf.GGUFWriter(paths["f32"], "llama")
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_rope_dimension_count(shape["hidden_size"] // shape["num_attention_heads"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("no_vocab")
    heads = {".query.": shape["num_attention_heads"], ".key.": shape["num_key_value_heads"]}
    for name, tensor in model.state_dict().items():
        array = tensor.float().numpy()
        for piece, count in heads.items():
            if piece in name:  # llama.cpp rotates neighbouring pairs in a Llama, we the two halves
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
    for kind, number in (("q8_0", Q8_0), ("q4_0", Q4_0)):
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype = number
        if llama_cpp.llama_model_quantize(bytes(paths["f32"]), bytes(paths[kind]), ctypes.pointer(how)):
            raise RuntimeError(f"llama.cpp could not write {kind}")
    return paths


class LlamaCpp:
    """A model in llama.cpp, in a process of its own: two OpenMP runtimes in one process do not get on.

    What is asked and answered is a few numbers, so the pipe costs nothing that a measurement would see.
    """

    def __init__(self, path: Path, threads: int, *, repack: bool = True):
        self.pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(other, path, threads, repack), daemon=True)
        self.process.start()
        other.close()
        self.vocab = self._ask("vocab")

    def read(self, prompt: Sequence[int]) -> None:
        """A pass over the prompt alone."""
        self._ask("read", list(prompt))

    def write(self, prompt: Sequence[int], count: int) -> list[int]:
        """Continues the prompt greedily."""
        return self._ask("write", list(prompt), count)

    def logits(self) -> np.ndarray:
        """The scores after the last token."""
        return self._ask("logits")

    def _ask(self, *question: Any) -> Any:
        try:
            self.pipe.send(question)
            return self.pipe.recv()
        except (EOFError, BrokenPipeError):
            raise RuntimeError("llama.cpp's process has ended") from None


def _serve(pipe: Any, path: Path, threads: int, repack: bool) -> None:
    """Answers questions about one model until the pipe closes."""
    library: Any = llama_cpp
    library.llama_log_set(_SILENT, ctypes.c_void_p(0))
    library.llama_backend_init()
    loading = library.llama_model_default_params()
    loading.use_extra_bufts = repack
    model = library.llama_model_load_from_file(bytes(path), loading)
    how = library.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_ubatch = 512, 512, 512
    how.n_threads = how.n_threads_batch = threads
    context = library.llama_init_from_model(model, how)
    vocab = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))

    def decode(tokens: Sequence[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        if library.llama_decode(context, library.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama.cpp failed to read")

    def logits() -> np.ndarray:
        return np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), shape=(vocab,))

    def read(prompt: Sequence[int]) -> None:
        library.llama_memory_clear(library.llama_get_memory(context), True)
        decode(prompt)

    def write(prompt: Sequence[int], count: int) -> list[int]:
        read(prompt)
        written = [int(logits().argmax())]
        while len(written) < count:
            decode(written[-1:])
            written.append(int(logits().argmax()))
        return written

    answers = {"read": read, "write": write, "logits": lambda: logits().copy(), "vocab": lambda: vocab}
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(answers[name](*arguments))
