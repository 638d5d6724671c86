"""GRPO on a model of 124 million parameters: seconds per step and peak memory, beside trl's GRPOTrainer.

A step samples 8 answers of 64 tokens to each of 8 prompts, scores them, and makes one update, in fp32 with AdamW,
clipping and no dropout. Both sides open the same folder of random weights and read the same prompts; an end of text is
so improbable that every answer has its full length. trl has its best setting for a CPU (``bf16=False,
gradient_checkpointing=False, use_cpu=True``, no reference model, its fastest micro-batch). Each run is a process of its
own (so its peak memory is its own), and the sides take turns.

    python benchmarks/align_grpo.py [--rounds 3] [--steps 4] [--beta 0] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from harness import machine, print_json

WARM_UP = 1
OURS, PEER = "underhood", "trl"
LIMIT = 1.5
"""How many times as fast as trl a step must be."""

RATE = 1e-6
SHAPES: dict[str, dict[str, int]] = {
    "full": {"d_model": 768, "layers": 12, "heads": 12, "d_ff": 2048, "vocab_size": 50_257},
    "quick": {"d_model": 256, "layers": 4, "heads": 4, "d_ff": 688, "vocab_size": 8192},
}
NUMBERS = ("prompts", "answers", "new_tokens", "prompt_tokens", "micro_batch", "steps", "threads", "beta")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the comparison."""
    parser.add_argument("--rounds", type=int, default=3, help="processes per side")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per process")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=16, help="answers per forward pass of the update")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL; above 0 both have a reference")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small model, one round: does it run at all")
    parser.add_argument("--side", choices=(OURS, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps((train_ours if options.side == OURS else train_peer)(options)))
        return
    result = compare_grpo(options)
    facts = machine("torch", "transformers", "trl")
    print_json("align-grpo", result, shape="quick" if options.quick else "full", **facts)


def grpo_step(rounds: int, threads: int, quick: bool) -> dict[str, Any]:
    """`compare_grpo` of a step of the usual size, for `bench_align`."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    words = [f"--rounds={rounds}", f"--threads={threads}", *(["--quick"] if quick else [])]
    return compare_grpo(parser.parse_args(words))


def compare_grpo(options: argparse.Namespace) -> dict[str, Any]:
    """Runs both sides in turns and prints a table; the ratio is of the medians over all timed steps."""
    if options.quick:
        options.rounds, options.steps = 1, min(options.steps, 2)
    with tempfile.TemporaryDirectory() as made:
        options.folder = Path(made)
        make_model(options.folder, SHAPES["quick" if options.quick else "full"])
        runs: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
        for turn in range(options.rounds):
            for side in (OURS, PEER)[:: -1 if turn % 2 else 1]:
                runs[side].append(last := in_its_own_process(options, side))
                seconds = statistics.median(last["seconds"])
                print(f"round {turn + 1}  {side:<10} {seconds:.2f} s/step, {last['peak_mb']:,.0f} MB", flush=True)
    median = {side: statistics.median(s for run in runs[side] for s in run["seconds"]) for side in runs}
    peak = {side: max(run["peak_mb"] for run in runs[side]) for side in runs}
    ratio = median[PEER] / median[OURS]
    print(f"\nGRPO step of {options.prompts} × {options.answers} × {options.new_tokens} new tokens:")
    for side in runs:
        print(f"  {side:<10} {median[side]:.2f} s, {peak[side]:,.0f} MB")
    print(f"  {ratio:.2f} × as fast (wanted: {LIMIT})")
    return {"seconds": median, "peak_mb": peak, "ratio": round(ratio, 3), "limit": LIMIT, "runs": runs}


def in_its_own_process(options: argparse.Namespace, side: str) -> dict[str, Any]:
    """The result of one side, from the last line of its output."""
    words = [sys.executable, __file__, "--side", side, "--folder", str(options.folder)]
    words += [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in NUMBERS]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_model(folder: Path, shape: dict[str, int]) -> None:
    """A Llama-shaped model of random weights as transformers makes it, and a tokenizer with a word for every id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape["d_model"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["d_ff"],
        vocab_size=shape["vocab_size"],
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<end>": 0} | {f"w{id}": id for id in range(1, shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.save_pretrained(folder / "words")


def prompts_of(options: argparse.Namespace) -> list[list[int]]:
    """Prompts of random words, enough for every step."""
    vocab_size = json.loads((options.folder / "config.json").read_text())["vocab_size"]
    generator = torch.Generator().manual_seed(1)
    shape = (options.prompts * (options.steps + WARM_UP), options.prompt_tokens)
    return torch.randint(1, vocab_size, shape, generator=generator).tolist()


def reward_of(text: str) -> float:
    """A reward that differs between answers: the share of words with an even last digit."""
    words = text.split()
    return sum(word[-1] in "02468" for word in words) / max(1, len(words))


class Words:
    """The tokenizer of `make_model`, as far as rollouts need one."""

    def __init__(self, vocab_size: int):
        self.vocab_size, self.special = vocab_size, {"<end>": 0}

    def encode(self, text: str) -> list[int]:
        return [int(word[1:]) for word in text.split()]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{id}" for id in ids)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self.decode(ids).encode()


def train_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Our outer loop; the times between ends of steps."""
    from underhood.align.experience import PolicyPrompt
    from underhood.align.policy import Policy
    from underhood.align.policy_methods import GRPOMethod
    from underhood.align.policy_specs import GRPOSpec
    from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
    from underhood.core.runlog import RunLog
    from underhood.models.hub_weights import load_decoder

    model = load_decoder(options.folder).requires_grad_(True)
    spec = RolloutSpec(
        steps=options.steps + WARM_UP,
        prompts=options.prompts,
        answers=options.answers,
        max_new_tokens=options.new_tokens,
        micro_batch=options.micro_batch,
        lr=RATE,
    )
    tokenizer = Words(model.vocab_size)
    prompts = [PolicyPrompt(ids, tokenizer.decode(ids)) for ids in prompts_of(options)]
    task = PolicyTask(
        prompts=prompts,
        reward=lambda answers: [reward_of(each.answer) for each in answers],
        tokenizer=tokenizer,
        stop_ids=[0],
    )
    method = GRPOMethod(GRPOSpec(beta=options.beta), options.new_tokens)
    policy = Policy(model, sampling=spec.sampling, reference=method.needs_reference)
    ends, lengths = [time.perf_counter()], list[float]()
    log = RunLog(None)
    log.listeners.append(lambda event: lengths.append(event["length"]) if event["kind"] == "step" else None)
    trainer = PolicyTrainer(
        policy, method, task, spec, stage="grpo", log=log, on_step=lambda _: ends.append(time.perf_counter())
    )
    trainer.train()
    return _result(ends, lengths)


def train_peer(options: argparse.Namespace) -> dict[str, Any]:
    """trl's GRPOTrainer; the times between ends of steps."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    tokenizer = Words(json.loads((options.folder / "config.json").read_text())["vocab_size"])
    texts = [tokenizer.decode(ids) for ids in prompts_of(options)]
    ends, lengths = [time.perf_counter()], list[float]()

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    def reward(completions: list[str], **_: Any) -> list[float]:
        lengths.append(sum(len(text.split()) for text in completions) / len(completions))
        return [reward_of(text) for text in completions]

    rows = options.prompts * options.answers
    with tempfile.TemporaryDirectory() as made:
        config = GRPOConfig(
            made,
            per_device_train_batch_size=options.micro_batch,
            gradient_accumulation_steps=rows // options.micro_batch,
            num_generations=options.answers,
            max_completion_length=options.new_tokens,
            max_steps=options.steps + WARM_UP,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            beta=options.beta,
            loss_type="grpo",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32),
            reward,  # pyright: ignore[reportArgumentType]
            config,
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=PreTrainedTokenizerFast.from_pretrained(options.folder / "words"),
            callbacks=[Clock()],
        )
        ends[0] = time.perf_counter()
        trainer.train()
    return _result(ends, lengths)


def _result(ends: list[float], lengths: list[float]) -> dict[str, Any]:
    seconds = [after - before for before, after in pairwise(ends)][WARM_UP:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak, "mean_length": statistics.mean(lengths)}


if __name__ == "__main__":
    main()
