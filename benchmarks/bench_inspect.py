"""Looking inside a GPT-2 of 124 million parameters: ours beside TransformerLens and captum, in one run.

The model has random weights; both sides have the same. A prompt of 128 tokens, float32. Times are ratios to a plain
forward pass of ours (all scores, no hooks) or to the peer's time for the same thing:

- lens: the five likeliest tokens of every residual stream, after the last token and after all; its extra
  memory is the peak of a process that makes it minus that of a process that only makes the forward pass;
- trace: the prompt's residual streams;
- patch sweep: every residual stream and token by itself, the score of two tokens;
- integrated gradients: 32 steps, of the embeddings;
- twenty checkpoints: the lens of one prompt at every saved checkpoint of a run, per twenty.

    pip install --no-deps transformer-lens captum; pip install einops fancy-einsum "typeguard<5"
    python benchmarks/bench_inspect.py [--rounds 5] [--threads 2] [--tokens 128] [--run runs/pydocs] [--quick]
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch, because underhood limits how long OpenMP's threads spin, as for every user.
from harness import Timing, compare, machine, options_from_command_line, print_json  # isort: skip

import torch

from inspect_peers import Lens, integrated_gradients_by_captum
from underhood.infer.load import PUBLISHED, LoadedModel
from underhood.inspect.attribution import integrated_gradients
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
from underhood.inspect.target import Target
from underhood.inspect.through_training import through_training
from underhood.inspect.trace import trace
from underhood.inspect.training_views import lens_view
from underhood.models.decoder import Decoder
from underhood.models.hub_weights import load_decoder
from underhood.text.characters import CharacterTokenizer

K = 5
ANSWER, OTHER = 100, 200
STEPS = 32
BASELINE = 0
"""The token from which both attribute: captum's default for a model that reads ids."""

ROWS = 8
"""Steps that captum runs side by side: faster here than all of them, or one."""

LIMITS = {
    "lens of one position / forward": 1.15,
    "lens of all positions / forward": 5.3,
    "lens of all positions / TransformerLens": 1.0,
    "lens of all positions, extra MB": 60.0,
    "trace / forward": 1.2,
    "trace / run_with_cache": 1.0,
    "patch sweep / TransformerLens": 1 / 3,
    "patch sweep, largest difference": 1e-5,
    "integrated gradients / captum": 1.0,
    "twenty checkpoints, seconds": 10.0,
}
"""What is promised, at most."""


@dataclass(frozen=True)
class Options:
    """Time of looking inside, beside a forward pass and TransformerLens."""

    rounds: int = 5
    """Timed runs of each side, in turns."""

    threads: int = torch.get_num_threads()
    """Threads for every side."""

    tokens: int = 128
    """Length of the prompt."""

    sweep_tokens: int = 32
    """Length of the prompts of the patch sweep, which runs the peer's model once for each layer and token."""

    run: Path | None = None
    """A run of `underhood build`, whose checkpoints are scrubbed; left out, that is not measured."""

    quick: bool = False
    """A model of two layers and one round: does it run at all."""

    memory_of: Path | None = None
    """Only measures the peak memory of a forward pass with the model in this folder; a process of its own."""

    with_lens: bool = False
    """With memory_of: the lens of all positions follows the forward pass."""


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        print(peak_megabytes(opened(options.memory_of), prompt(options.tokens), with_lens=options.with_lens))
        return
    with tempfile.TemporaryDirectory() as name:
        results = measure(options, Path(name))
    limits = {what: limit for what, limit in LIMITS.items() if what in results}
    for what, limit in limits.items():
        print(f"{what:<44}{results[what]:>12.3g}  (limit {limit:.3g}){'' if results[what] <= limit else '  MISSED'}")
    print_json(
        "inspect", results, **machine("torch", "transformers", "transformer-lens", "captum"), threads=options.threads
    )


def measure(options: Options, folder: Path) -> dict[str, Any]:
    """Every figure by name."""
    theirs = saved_gpt2(folder, quick=options.quick)
    loaded = opened(folder)
    lens = Lens(theirs)
    rounds = 1 if options.quick else options.rounds
    ids, model = prompt(options.tokens), loaded.decoder
    tokens_1T = torch.tensor([ids])
    recorded = trace(loaded, ids)

    @torch.no_grad()
    def forward() -> None:
        model(tokens_1T)

    results: dict[str, Any] = {}
    # The pass that a ratio is to runs beside what it is compared with, for the machine's speed changes by the minute.
    pairs: Mapping[str, Mapping[str, Callable[[], Any]]] = {
        "one": {"forward": forward, "lens": lambda: logit_lens(loaded, trace(loaded, ids), positions=[-1], k=K)},
        "all": {
            "forward": forward,
            "lens": lambda: logit_lens(loaded, trace(loaded, ids), k=K),
            "TransformerLens": lambda: lens.lens(ids, K),
        },
        "trace": {
            "forward": forward,
            "trace": lambda: trace(loaded, ids),
            "run_with_cache": lambda: lens.cached(ids),
        },
    }
    timed = {name: _shown(name, compare(functions, rounds)) for name, functions in pairs.items()}
    results["lens of one position / forward"] = _ratio(timed["one"], "lens", "forward")
    results["lens of all positions / forward"] = _ratio(timed["all"], "lens", "forward")
    results["lens of all positions / TransformerLens"] = _ratio(timed["all"], "lens", "TransformerLens")
    results["trace / forward"] = _ratio(timed["trace"], "trace", "forward")
    results["trace / run_with_cache"] = _ratio(timed["trace"], "trace", "run_with_cache")
    theirs_ids, _ = lens.lens(ids, K)
    results["lens, share of equal tokens"] = float((logit_lens(loaded, recorded, k=K).ids == theirs_ids).float().mean())
    peaks = [peak_of_process(options, folder, *flag) for flag in ((), ("--with-lens",))]
    results["lens of all positions, extra MB"] = round(peaks[1] - peaks[0], 1)
    results["megabytes"] = {"forward": peaks[0], "lens": peaks[1]}

    source, target = prompt(options.sweep_tokens), prompt(options.sweep_tokens, seed=1)
    swept: dict[str, torch.Tensor] = {}

    def ours() -> None:
        swept["ours"] = patch_residual(loaded, source, target, answer=ANSWER, other=OTHER).differences

    def peers() -> None:
        swept["theirs"] = lens.patch_sweep(source, target, ANSWER, OTHER)

    timed["sweep"] = _shown("sweep", compare({"ours": ours, "TransformerLens": peers}, min(rounds, 3), warm_up=0))
    results["patch sweep / TransformerLens"] = _ratio(timed["sweep"], "ours", "TransformerLens")
    difference = (swept["ours"][: len(swept["theirs"])] - swept["theirs"]).abs().max() / swept["theirs"].abs().max()
    results["patch sweep, largest difference"] = float(difference)

    attributions = {
        "ours": lambda: integrated_gradients(
            loaded, ids, Target(token=ANSWER), baseline=BASELINE, steps=STEPS, held=()
        ),
        "captum": lambda: integrated_gradients_by_captum(model, ids, ANSWER, STEPS, ROWS),
    }
    timed["gradients"] = _shown("integrated gradients", compare(attributions, min(rounds, 3)))
    results["integrated gradients / captum"] = _ratio(timed["gradients"], "ours", "captum")
    if (run := options.run) is not None:
        counts: list[int] = []
        timed["scrub"] = _shown("checkpoints", compare({"ours": lambda: counts.append(scrub(run))}, 1, warm_up=0))
        results["checkpoints"] = counts[-1]
        results["twenty checkpoints, seconds"] = round(timed["scrub"]["ours"].median / counts[-1] * 20, 2)
    results["seconds"] = {name: {side: each.as_json() for side, each in sides.items()} for name, sides in timed.items()}
    return results


def scrub(run: Path) -> int:
    """The lens of a prompt at every saved checkpoint of a run; how many there are."""
    text = 'def read(path):\n    """Return the text of a file.'
    return len(through_training(run, text, lens_view([-1], k=K)).checkpoints)


def peak_of_process(options: Options, folder: Path, *flags: str) -> float:
    """`peak_megabytes` of the saved model in a new process, so that nothing before has raised the peak."""
    command = [sys.executable, __file__, "--memory-of", str(folder), "--tokens", str(options.tokens)]
    command += ["--threads", str(options.threads), *flags]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def peak_megabytes(loaded: LoadedModel, ids: list[int], *, with_lens: bool) -> float:
    """The most memory that this process holds at once in a forward pass, and in the lens of all positions after it.

    Reading the weights takes more for a moment, so the peak is counted anew after it (Linux only).
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins at what is held now
    with torch.no_grad():
        loaded.decoder(torch.tensor([ids]))
    if with_lens:
        logit_lens(loaded, trace(loaded, ids), k=K)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def saved_gpt2(folder: Path, *, quick: bool) -> Any:
    """transformers' GPT-2 with random weights, saved in a folder."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2) if quick else GPT2Config()).eval()
    model.save_pretrained(folder)
    return model


def opened(folder: Path) -> LoadedModel:
    """The saved model as ours, with a tokenizer of one character per id."""
    model = load_decoder(folder).eval()
    assert isinstance(model, Decoder)
    tokenizer = CharacterTokenizer("".join(chr(0x10000 + number) for number in range(model.vocab_size)))
    return LoadedModel(model, tokenizer, model.spec, PUBLISHED, folder, folder, 0)


def prompt(tokens: int, seed: int = 0) -> list[int]:
    return torch.randint(1, 50_000, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def _ratio(timings: Mapping[str, Timing], ours: str, theirs: str) -> float:
    return round(timings[ours].median / timings[theirs].median, 4)


def _shown(name: str, timings: dict[str, Timing]) -> dict[str, Timing]:
    for side, timing in timings.items():
        print(f"{name:<22}{side:<18}{timing}", flush=True)
    return timings


if __name__ == "__main__":
    main()
