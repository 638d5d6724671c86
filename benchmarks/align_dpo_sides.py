"""The two sides of the DPO benchmark: our loop and trl's, each meant to run in a process of its own."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

WARM_UP = 2
OURS, PEER = "underhood", "trl"
BETA, RATE = 0.1, 1e-5
SHAPES: dict[str, dict[str, int]] = {
    "full": {"d_model": 768, "layers": 12, "heads": 12, "d_ff": 2048, "vocab_size": 50_257},
    "quick": {"d_model": 256, "layers": 4, "heads": 4, "d_ff": 688, "vocab_size": 8192},
}
END = 0
"""Id of the end-of-text token, which is also trl's padding."""


def make_model(folder: Path, shape: dict[str, int], family: str, context: int) -> None:
    """A model of random weights as transformers makes it, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ends = {"bos_token_id": END, "eos_token_id": END}
    if family == "gpt2":
        config: Any = GPT2Config(
            n_embd=shape["d_model"],
            n_layer=shape["layers"],
            n_head=shape["heads"],
            vocab_size=shape["vocab_size"],
            n_positions=context,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **ends,
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
        return
    config = LlamaConfig(
        hidden_size=shape["d_model"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["d_ff"],
        vocab_size=shape["vocab_size"],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        **ends,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def examples(options: argparse.Namespace, vocab: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompts, chosen and rejected answers of random tokens; every answer ends with the end of text."""
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(1, vocab, (count,), generator=generator).tolist()

    answer = options.answer - 1
    return [(draw(options.prompt), [*draw(answer), END], [*draw(answer), END]) for _ in range(options.pairs)]


def marked_pairs(options: argparse.Namespace, vocab: int) -> list[Any]:
    """The examples as `PairBatches` reads them."""
    made = []
    for prompt, *answers in examples(options, vocab):
        made.append(tuple(([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)) for answer in answers))
    return made


def train_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of `train.loop.fit` with `DPOLoss`, on the same batch of pairs again and again."""
    from underhood.align.dpo import DPOLoss, DPOSpec, score_all_pairs
    from underhood.align.pairs import PairBatches
    from underhood.core.device import Device
    from underhood.core.runlog import RunLog
    from underhood.models.hub_weights import load_decoder
    from underhood.train.loop import FitSpec, fit
    from underhood.train.optim import AdamWSpec
    from underhood.train.schedule import ScheduleSpec

    model = load_decoder(options.folder).requires_grad_(True)
    batches = PairBatches(marked_pairs(options, model.vocab_size), batch_size=options.pairs, seed=0)
    reference = score_all_pairs(model, batches)
    log, losses, times = RunLog(None), [], [time.perf_counter()]
    log.listeners.append(lambda event: losses.append(event["loss"]) if event["kind"] == "step" else None)
    fit(
        model,
        batches,
        DPOLoss(reference, DPOSpec(beta=BETA)),
        AdamWSpec(lr=RATE, betas=(0.9, 0.999), weight_decay=0.0).build(model),
        FitSpec(steps=WARM_UP + options.steps, schedule=ScheduleSpec(warmup=0, decay=0)),
        stage="dpo",
        log=log,
        device=Device(name="cpu", dtype="float32"),
        on_step=lambda _: times.append(time.perf_counter()),
    )
    return result(times, losses)


def train_peer(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of trl's `DPOTrainer` at its best setting for a CPU, on the same pairs."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(options.folder, attn_implementation="sdpa", dtype=torch.float32)
    vocab = model.config.vocab_size
    rows = [
        dict(zip(("prompt", "chosen", "rejected"), map(words_of, ids), strict=True)) for ids in examples(options, vocab)
    ]
    times = [0.0]

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times[0] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            beta=BETA,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=options.pairs,
            max_steps=WARM_UP + options.steps,
            max_length=options.prompt + options.answer,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=word_tokenizer(vocab),
            callbacks=[Clock()],
        )
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return result(times, losses)


def words_of(ids: Sequence[int]) -> str:
    """Ids as a text of one word each, the end of text left out (trl adds it to answers)."""
    return "".join(f" w{id}" for id in ids if id != END)


def word_tokenizer(vocab: int) -> Any:
    """A tokenizer whose words are the ids themselves."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {"<end>": END, **{f"w{id}": id for id in range(1, vocab)}}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def gradient_difference(options: argparse.Namespace) -> dict[str, Any]:
    """Largest difference of any parameter's gradient with and without shared prompts, and against trl's."""
    from underhood.align.dpo import DPOSpec, PairScores, pair_log_probs
    from underhood.align.pairs import PairBatches
    from underhood.models.hub_weights import load_decoder

    model = load_decoder(options.folder).requires_grad_(True)
    batch = PairBatches(marked_pairs(options, model.vocab_size), batch_size=options.pairs, seed=0)(0)
    ones_N = torch.ones(options.pairs)
    gradients = []
    for least_saved in (-1.0, 2.0):
        model.zero_grad()
        chosen_N, rejected_N = pair_log_probs(model, batch.rows, least_saved=least_saved).chunk(2)
        policy = PairScores(chosen_N, rejected_N, ones_N, ones_N)
        reference = PairScores(chosen_N.detach() - 1, rejected_N.detach(), ones_N, ones_N)
        DPOSpec(beta=BETA).preference(policy, reference).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    whole = gradients[1]
    relative = [
        float((gradients[0][name] - g).abs().max() / g.abs().max().clamp(min=1e-12)) for name, g in whole.items()
    ]
    absolute = [float((gradients[0][name] - g).abs().max()) for name, g in whole.items()]
    return {"largest_relative": max(relative), "largest_absolute": max(absolute), "parameters": len(whole)}


def result(times: list[float], losses: list[float]) -> dict[str, Any]:
    """Median seconds of a step, peak memory and losses of a training."""
    seconds = [after - before for before, after in pairwise(times)][WARM_UP:]
    scale = 1024 if sys.platform == "darwin" else 1  # bytes there, kilobytes elsewhere
    return {
        "median_s": statistics.median(seconds),
        "seconds": [round(second, 4) for second in seconds],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / scale,
        "losses": [round(float(loss), 6) for loss in losses],
    }


def alternating(rounds: int) -> Iterator[tuple[int, str]]:
    """Rounds with their two sides, in an order that turns round each time."""
    for turn in range(rounds):
        for side in (OURS, PEER)[:: -1 if turn % 2 else 1]:
            yield turn, side
