"""Writing with a Llama of 134 million parameters on a CPU: ours beside transformers and llama.cpp, in the same run.

All sides hold the same random weights (ours in float32, 8 and 4 bits; llama.cpp's in float32, q8_0 and q4_0, written
here as GGUF and quantised by llama.cpp itself). One stream: 16 tokens are read and 64 are written, greedily. Prefill:
256 tokens are read. Sixteen streams: as many prompts at once. What the memory can give is measured in between, by
reading as many bytes as one token needs. The first logits of ours and the peers' float32 must agree: it is the same
model. (What 8 and 4 bits do to what a trained model writes is another question: `bench_quantize_quality.py`.)

    python benchmarks/bench_decode.py [--rounds 5] [--threads 2] [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decode_peers import LlamaCpp, transformers_twin, write_ggufs
from harness import Timing, compare, machine, options_from_command_line, print_json
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.optimize import optimize_for_inference
from underhood.infer.request import Request
from underhood.infer.sequence_runner import SequenceRunner
from underhood.infer.session import Session
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.huggingface import spec_from_config
from underhood.text.characters import CharacterTokenizer

PROMPT, WRITTEN, PREFILL, STREAMS = 16, 64, 256, 16
SHAPE = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2_048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "max_position_embeddings": 1_024,
    "rms_norm_eps": 1e-5,
}


@dataclass(frozen=True)
class Options:
    """Tokens per second of a 134 M Llama: ours, transformers' and llama.cpp's."""

    rounds: int = 5
    """Timed runs of each side, in turns."""

    threads: int = torch.get_num_threads()
    """Threads for every side."""

    quick: bool = False
    """A small model, two rounds: does it run at all."""


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    shape = SHAPE | ({"num_hidden_layers": 2, "vocab_size": 2_048} if options.quick else {})
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    model = random_model(spec_from_config(shape, where="the benchmark"))
    with tempfile.TemporaryDirectory() as folder:
        results = measure(model, shape, Path(folder), rounds, options.threads)
    show(results)
    print_json("decode", results, **machine("torch", "transformers", "llama-cpp-python"), threads=options.threads)


def random_model(spec: DecoderSpec) -> Decoder:
    model = spec.build().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(std=0.02, generator=generator)
    return model


def measure(model: Decoder, shape: dict[str, Any], folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    twin = transformers_twin(model, shape)
    prompt = np.random.default_rng(0).integers(0, shape["vocab_size"], PREFILL).tolist()
    peers, missing = llama_peers(write_ggufs(model, shape, folder), prompt, threads)
    read = torch.ones(sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embed.")))
    ours: dict[str, Decoder] = {kind: optimize_for_inference(model, kind) for kind in ("int8", "int4")}
    ours["fp32"] = optimize_for_inference(model)
    check_same(ours["fp32"], twin, peers.get("f32"), prompt[:PROMPT])

    single: dict[str, Callable[[], Any]] = {"memory read": read.sum}
    single |= {f"underhood {kind}": Writer(ours[kind], prompt[:PROMPT]) for kind in ("fp32", "int8", "int4")}
    single["transformers fp32"] = lambda: twin_writes(twin, [prompt[:PROMPT]])
    for kind, peer in peers.items():
        single[f"llama.cpp {kind}"] = lambda peer=peer: peer.write(prompt[:PROMPT], WRITTEN)
    results: dict[str, Any] = {"one stream": rates(compare(single, rounds), WRITTEN, {"memory read": 1})}
    show_table("one stream", results["one stream"])

    reading: dict[str, Callable[[], Any]] = {
        f"underhood {kind}": lambda kind=kind: read_prompt(ours[kind], prompt) for kind in ("fp32", "int8", "int4")
    }
    reading["transformers fp32"] = lambda: twin_reads(twin, prompt)
    for kind, peer in peers.items():
        reading[f"llama.cpp {kind}"] = lambda peer=peer: peer.read(prompt)
    results["prefill"] = rates(compare(reading, rounds), PREFILL)
    show_table("prefill", results["prefill"])

    prompts = [[(token + shift) % shape["vocab_size"] for token in prompt[:PROMPT]] for shift in range(STREAMS)]
    many: dict[str, Callable[[], Any]] = {f"underhood {kind}": Crowd(ours[kind], prompts) for kind in ("fp32", "int8")}
    many["transformers fp32"] = lambda: twin_writes(twin, prompts)
    results[f"{STREAMS} streams"] = rates(compare(many, rounds), WRITTEN * STREAMS)
    show_table(f"{STREAMS} streams", results[f"{STREAMS} streams"])
    results["missing"] = missing
    return results


def llama_peers(paths: dict[str, Path], prompt: Sequence[int], threads: int) -> tuple[dict[str, LlamaCpp], list[str]]:
    """llama.cpp with each of the files, and why one is missing."""
    peers, missing = {}, [] if paths else ["llama.cpp (llama-cpp-python is not installed)"]
    for kind, path in paths.items():
        for repack in (True, False):  # some builds crash on weights repacked for matrix units (AMX)
            try:
                peer = LlamaCpp(path, threads, repack=repack)
                peer.read(prompt)
                peers[kind] = peer
                break
            except RuntimeError as error:
                missing.append(f"llama.cpp {kind}{' repacked' if repack else ''} ({error})")
    return peers, missing


class Writer:
    """Our users' way to a single text."""

    def __init__(self, model: Decoder, prompt: Sequence[int]):
        self.model, self.prompt = model, list(prompt)

    def __call__(self) -> None:
        written = list(Session(self.model).stream(self.prompt, max_new_tokens=WRITTEN))
        assert len(written) == WRITTEN


class Crowd:
    """Sixteen requests at once, through the engine."""

    def __init__(self, model: Decoder, prompts: Sequence[Sequence[int]]):
        # The prompts are ids, so it only has to spell the answers.
        tokenizer = CharacterTokenizer("".join(chr(256 + id) for id in range(model.vocab_size)))
        self.engine = Engine(model, tokenizer, EngineSpec(max_sequences=len(prompts), prefix_caching=False))
        self.prompts = prompts

    def __call__(self) -> None:
        handles = [self.engine.submit(Request(prompt=prompt, max_new_tokens=WRITTEN)) for prompt in self.prompts]
        while self.engine.step():
            pass
        assert all(handle.usage.completion_tokens == WRITTEN for handle in handles)


@torch.inference_mode()
def read_prompt(model: Decoder, prompt: Sequence[int]) -> Tensor:
    return SequenceRunner(model, capacity=len(prompt) + 1).prefill([prompt])


@torch.inference_mode()
def twin_reads(twin: Any, prompt: Sequence[int]) -> Tensor:
    return twin(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits[:, -1]


def twin_writes(twin: Any, prompts: Sequence[Sequence[int]]) -> None:
    tokens = torch.tensor(prompts)
    written = twin.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=WRITTEN,
        min_new_tokens=WRITTEN,
        do_sample=False,
        pad_token_id=0,
    )
    assert written.shape[1] == len(prompts[0]) + WRITTEN


def check_same(model: Decoder, twin: Any, peer: LlamaCpp | None, prompt: Sequence[int]) -> None:
    """Ends the benchmark if the sides do not compute the same function."""
    ours = read_prompt(model, prompt)[0]
    scale = float(ours.std())
    sides = {"transformers": twin_reads(twin, prompt)[0]}
    if peer is not None:
        peer.read(prompt)
        sides["llama.cpp"] = torch.from_numpy(peer.logits().copy())
    for name, logits in sides.items():
        off = float((logits - ours).abs().max()) / scale
        print(f"{name:<14} first logits within {off:.1e} standard deviations of ours", flush=True)
        if off > 0.02:
            sys.exit(f"{name} computes something else")


def rates(timings: dict[str, Timing], tokens: int, single: dict[str, int] | None = None) -> dict[str, Any]:
    """Tokens per second of each side: median, slowest and fastest run."""
    actual = {}
    for name, timing in timings.items():
        count = (single or {}).get(name, tokens)
        low, high = timing.spread
        actual[name] = {
            "tokens_per_s": round(count / timing.median, 1),
            "range": [round(count / high, 1), round(count / low, 1)],
            **timing.as_json(),
        }
    return actual


def show_table(title: str, table: dict[str, Any]) -> None:
    print(f"\n{title:<24}{'tokens/s':>10}{'range':>18}")
    for name, row in table.items():
        low, high = row["range"]
        print(f"{name:<24}{row['tokens_per_s']:>10,.1f}{f'{low:,.1f}–{high:,.1f}':>18}", flush=True)


def show(results: dict[str, Any]) -> None:
    print()
    for line in results["missing"]:
        print(f"missing: {line}")
    for name, (value, goal) in goals(results).items():
        print(f"{name:<60}{value:>8.2f}  (goal {goal})")


def goals(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Each quotient that was promised, and what it was to be at least."""
    tables = ("one stream", "prefill", f"{STREAMS} streams")
    rate = {title: {name: row["tokens_per_s"] for name, row in results[title].items()} for title in tables}
    item, many, reading = rate["one stream"], rate[f"{STREAMS} streams"], rate["prefill"]
    ours = "underhood fp32"
    actual = {
        "one stream, fp32 / transformers": (item[ours] / item["transformers fp32"], 1.6),
        "one stream, fp32 / what the memory can give": (item[ours] / item["memory read"], 0.85),
        "prefill, fp32 / transformers": (reading[ours] / reading["transformers fp32"], 1.1),
        f"{STREAMS} streams, fp32 / transformers": (many[ours] / many["transformers fp32"], 1.8),
        f"{STREAMS} streams, fp32 / our one stream": (many[ours] / item[ours], 4.0),
    }
    for kind, peer, goal in (("int8", "q8_0", 1.1), ("int4", "q4_0", 0.9)):
        if f"llama.cpp {peer}" in item:
            quotient = item[f"underhood {kind}"] / item[f"llama.cpp {peer}"]
            actual[f"one stream, {kind} / llama.cpp {peer}"] = (quotient, goal)
    return actual


if __name__ == "__main__":
    main()
