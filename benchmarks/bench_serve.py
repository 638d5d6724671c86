"""The server under load: many requests of mixed lengths, a shared beginning, a thousand clients at once.

The command ``underhood serve`` runs in a process of its own over a random model (what it says does not matter, what it
costs does); clients speak HTTP to it over loopback from this process, on the same cores.

- *load*: requests arrive as a Poisson process; throughput, time to first token, time between tokens.
- *prefix*: time to first token of prompts that share 1,000 tokens, against prompts that share nothing. (The ablation is
  in the same run: with a salt of its own, a prompt shares nothing.)
- *crowd*: all connections are opened before any asks; every one must be answered, and memory must not grow from round
  to round.

    python benchmarks/bench_serve.py [--requests 200] [--rate 3] [--connections 1000] [--quick]
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from harness import machine, options_from_command_line, print_json

VOCABULARY, CONTEXT, WIDTH, LAYERS = 4096, 2048, 384, 6
SPECIAL = 32
"""The last ids of a vocabulary; those of special tokens, such as the end, are among them."""
CACHE_MB = 256
"""The cache is reserved at the start, but the system counts its pages as they are first used: a small one is soon all
in use, so that growth from round to round is growth of something else."""


@dataclass(frozen=True)
class Options:
    """Measures the server under load."""

    requests: int = 200
    """How many arrive one after the other."""

    rate: float = 3.0
    """How many of them per second, on average."""

    connections: int = 1000
    """How many clients ask at once."""

    rounds: int = 3
    """How often the crowd asks."""

    prefixes: int = 9
    """Prompts timed with a shared beginning, and without."""

    seed: int = 0
    """Of arrivals and lengths."""

    quick: bool = False
    """A tiny load: does it run at all."""


@dataclass
class Asked:
    """One request as its client saw it: seconds to the first token, between tokens, and in all."""

    status: int = 0
    first: float | None = None
    gaps: list[float] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    error: str | None = None


def make_run(folder: Path) -> None:
    """A run with a random model of about 12 million parameters."""
    from underhood.core.checkpoint import module_tensors, write_checkpoint
    from underhood.core.config import to_json
    from underhood.core.files import sha256_of
    from underhood.models.decoder import qwen3_shaped
    from underhood.text.bpe import train_bpe

    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(6000)]
    folder.mkdir(parents=True)
    tokenizer = train_bpe([" ".join(draw.choices(words, k=200)) for _ in range(300)], vocab_size=VOCABULARY)
    tokenizer.save(folder / "tokenizer.json")
    (folder / "run.toml").write_text("", encoding="utf-8")
    spec = qwen3_shaped(
        vocab_size=tokenizer.vocab_size,
        context_length=CONTEXT,
        d_model=WIDTH,
        layers=LAYERS,
        heads=6,
        kv_heads=6,
        d_ff=1024,
    )
    model = spec.initialize(seed=0)
    state = {"spec": to_json(spec), "model": "base", "tokenizer": sha256_of(folder / "tokenizer.json")}
    write_checkpoint(folder / "checkpoints" / "base", 1, {"model": module_tensors(model)}, state)


class Served:
    """``underhood serve`` in a process of its own."""

    def __init__(self, run: Path, *options: str):
        command = [str(Path(sys.executable).with_name("underhood")), "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = ""
        while "Page: http" not in line:
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit("the server did not start")
        self.port = int(line.split("Page: http://")[1].split()[0].rpartition(":")[2])

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


async def ask(
    port: int,
    prompt: Sequence[int],
    tokens: int,
    *,
    salt: str = "",
    go: asyncio.Event | None = None,
    endless: bool = False,
) -> Asked:
    """Streams one completion; with `go`, connects and then waits for it before asking; `endless` draws no end token."""
    done = Asked()
    body = json.dumps(
        {"model": "bench", "prompt": list(prompt), "max_tokens": tokens, "temperature": 1, "stream": True,
         "cache_salt": salt, "logprobs": 0,
         "logit_bias": {str(id): -100 for id in range(VOCABULARY - SPECIAL, VOCABULARY)} if endless else {}}
    ).encode()  # fmt: skip
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if go is not None:
            await go.wait()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        start = last = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        done.status = int((await reader.readline()).split()[1])
        ended = False
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                ended = True
            elif line.startswith(b"data: "):
                now = time.perf_counter()
                event = json.loads(line[6:])
                count = sum(len(choice["logprobs"]["tokens"]) for choice in event["choices"] if choice["logprobs"])
                if count and done.first is None:
                    done.first = now - start
                elif count:
                    done.gaps.append(now - last)
                done.tokens += count
                last = now
        done.seconds = time.perf_counter() - start
        if done.status == 200 and not ended:
            done.error = "the stream broke off"
        writer.close()
    except (OSError, ValueError, IndexError) as error:
        done.error = repr(error)
    return done


async def load(served: Served, options: Options, draw: random.Random) -> dict[str, Any]:
    """Requests of mixed lengths at random times."""
    tasks = []
    start = time.perf_counter()
    for _ in range(options.requests):
        await asyncio.sleep(draw.expovariate(options.rate))
        prompt = [draw.randrange(VOCABULARY - 300) for _ in range(round(16 * 2 ** draw.uniform(0, 5)))]
        tasks.append(asyncio.create_task(ask(served.port, prompt, round(8 * 2 ** draw.uniform(0, 4)))))
    actual = await asyncio.gather(*tasks)
    seconds = time.perf_counter() - start
    firsts = [answer.first for answer in actual if answer.first is not None]
    gaps = [gap for answer in actual for gap in answer.gaps]
    return {
        "requests": len(actual),
        "answered": sum(answer.status == 200 and answer.error is None for answer in actual),
        "seconds": seconds,
        "requests_per_s": len(actual) / seconds,
        "tokens_per_s": sum(answer.tokens for answer in actual) / seconds,
        "first_token_ms": percentiles(firsts),
        "between_tokens_ms": percentiles(gaps),
    }


async def prefix(served: Served, options: Options, draw: random.Random) -> dict[str, Any]:
    """Prompts of 1,000 shared tokens and 16 of their own, one at a time; each with and without the sharing."""
    common = [draw.randrange(VOCABULARY - 300) for _ in range(1000)]
    await ask(served.port, common, 1)
    shared, alone = [], []
    for number in range(options.prefixes):
        own = [draw.randrange(VOCABULARY - 300) for _ in range(16)]
        for times, salt in ((shared, ""), (alone, f"{number}")):
            done = await ask(served.port, [*common, *own], 4, salt=salt, endless=True)
            assert done.first is not None, done
            times.append(done.first)
    ratios = [slow / fast for slow, fast in zip(alone, shared, strict=True)]
    return {
        "shared_first_token_ms": percentiles(shared),
        "alone_first_token_ms": percentiles(alone),
        "times_faster": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }


async def crowd(served: Served, options: Options, draw: random.Random) -> dict[str, Any]:
    """Everybody connects, then everybody asks."""
    rounds = []
    memory = [served.memory]
    for _ in range(options.rounds):
        go = asyncio.Event()
        prompts = [[draw.randrange(VOCABULARY - 300) for _ in range(16)] for _ in range(options.connections)]
        tasks = [asyncio.create_task(ask(served.port, prompt, 8, go=go)) for prompt in prompts]
        await asyncio.sleep(1 + options.connections / 1000)  # all are connected by now
        start = time.perf_counter()
        go.set()
        actual = await asyncio.wait_for(asyncio.gather(*tasks), 170)
        rounds.append(
            {
                "seconds": time.perf_counter() - start,
                "answered": sum(answer.status == 200 and answer.error is None for answer in actual),
                "told_to_wait": sum(answer.status == 429 for answer in actual),
                "lost": sum(answer.error is not None or answer.status not in (200, 429) for answer in actual),
                "tokens": sum(answer.tokens for answer in actual),
                "first_token_ms": percentiles([answer.first for answer in actual if answer.first is not None]),
            }
        )
        memory.append(served.memory)
    return {
        "connections": options.connections,
        "rounds": rounds,
        "lost": sum(answer["lost"] for answer in rounds),
        "memory_mib": [round(bytes / 2**20, 1) for bytes in memory],
        "memory_growth_after_first_round": memory[-1] / memory[1] - 1,
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Median, 90th and 99th percentile in milliseconds."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
    return {name: round(1000 * value, 2) for name, value in at.items()}


SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def main() -> None:
    options = options_from_command_line(Options)
    if options.quick:
        options = replace(options, requests=20, connections=50, rounds=2, prefixes=3, rate=10.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * options.connections + 200
    if soft < wanted:  # inherited by the server
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))
    folder = Path(tempfile.mkdtemp())
    results: dict[str, Any] = {}
    try:
        make_run(folder / "bench")
        served = Served(folder / "bench", "--max-waiting", str(2 * options.connections), "--cache-mb", str(CACHE_MB))
        try:
            for name, piece in (("prefix", prefix), ("load", load), ("crowd", crowd)):
                results[name] = asyncio.run(piece(served, options, random.Random(options.seed)))
                print(f"{name}: {json.dumps(results[name], indent=1)}", flush=True)
        finally:
            served.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts: dict[str, Any] = {"model": {"vocabulary": VOCABULARY, "context": CONTEXT, "width": WIDTH, "layers": LAYERS}}
    print_json(
        "serve", results, seed=options.seed, rate=options.rate, **facts, **machine("torch", "uvicorn", "fastapi")
    )


if __name__ == "__main__":
    main()
