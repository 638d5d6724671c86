"""Training any model by PPO or GRPO on a file of prompts and a reward, into a folder of its own.

The folder is a run in small, as of ``underhood finetune``: the settings (``grpo.toml`` or ``ppo.toml``),
``events.jsonl``, the tokenizer, ``checkpoints/grpo`` (a model like any other: LoRA is folded in), ``adapter`` (LoRA
alone) and ``results.json``. What is interrupted goes on.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from underhood.align.adapter import names_of, save_adapter
from underhood.align.experience import PolicyPrompt
from underhood.align.policy import Policy
from underhood.align.policy_methods import GRPOMethod, PolicyMethod, PPOMethod
from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.provenance import commit
from underhood.core.runlog import RunLog
from underhood.core.text_files import read_filled_text
from underhood.data.batch import Batch
from underhood.data.prompts import PromptRecord, read_prompts
from underhood.infer.load import LoadedModel, load
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.nn.lora import LoRASpec, fold
from underhood.recipes.finetune import default_rate
from underhood.recipes.policy_settings import GRPO_FILE, PPO_FILE, GRPOSettings, PPOSettings
from underhood.recipes.reward_choice import check_references, choose_reward
from underhood.recipes.tuned_run import rank_of, training_in_folder, write_model

RATE_SHARE = 0.25
"""Learning rate of policy gradients as a share of fine-tuning's: their gradients are far noisier."""

MEASURED = 64
"""Held-out prompts that are answered before and after, at most."""

PTX_TOKENS = 512
"""Tokens of pretraining text per update in PPO-ptx."""


@dataclass(frozen=True)
class PolicyTrained:
    """What came out.

    Attributes:
        before, after: mean reward and length of sampled answers to the held-out prompts.
        plain: prompts that were read as plain text because the model has no chat template.
    """

    path: Path
    steps: int
    trained_parameters: int
    parameters: int
    prompts: int
    held_out: int
    plain: int
    before: dict[str, float]
    after: dict[str, float]


def train_policy(spec: GRPOSettings | PPOSettings, out: Path) -> tuple[RunLog, Callable[[], PolicyTrained]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, GRPO_FILE if isinstance(spec, GRPOSettings) else PPO_FILE, _train)


def _train(spec: GRPOSettings | PPOSettings, out: Path, log: RunLog) -> PolicyTrained:
    stage = "grpo" if isinstance(spec, GRPOSettings) else "ppo"
    log.event(stage, "note", text=f"model {spec.model}, data {spec.data}, reward {spec.reward}")
    name = choose_device(spec.device)
    device = Device(name=name, dtype=spec.dtype)
    records = read_prompts(Path(spec.data))
    check_references(spec.reward, records)
    reward = choose_reward(spec.reward)
    loaded = load(spec.model, spec.stage, device=device.torch, progress=log.counter(stage, "reading the model"))
    model = loaded.decoder
    prompts, plain = policy_prompts(loaded, records, model.context_length, spec.max_new_tokens, log, stage)
    train, held_out = split_prompts(prompts, spec.validation, spec.seed)
    rank = rank_of(spec, model)
    lora = _adapt(model, spec, rank)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    method: PolicyMethod
    if isinstance(spec, GRPOSettings):
        method, ptx = GRPOMethod(spec.method, spec.max_new_tokens), None
    else:
        method = PPOMethod(spec.method)
        ptx = None if spec.ptx_data is None else text_batches(loaded, Path(spec.ptx_data), spec.seed)
    rate = spec.lr or RATE_SHARE * default_rate(model.spec.d_model, lora is not None)
    steps = spec.steps or math.ceil(len(train) / spec.prompts)
    rollouts = RolloutSpec(
        steps=steps,
        prompts=spec.prompts,
        answers=spec.answers,
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        top_k=spec.top_k,
        top_p=spec.top_p,
        minibatches=spec.minibatches,
        micro_batch=spec.micro_batch,
        lr=rate,
        warmup=spec.warmup,
        clip=spec.clip,
        save_every=spec.save_every,
        seed=spec.seed,
        trained_only=lora is not None,
    )
    policy = Policy(
        model,
        sampling=rollouts.sampling,
        value_init_std=method.value_init_std,
        reference=method.needs_reference,
        dropout=method.dropout,
        seed=spec.seed,
    )
    task = PolicyTask(
        prompts=train,
        reward=reward,
        tokenizer=loaded.tokenizer,
        stop_ids=loaded.stop_ids,
        reward_name=spec.reward,
        ptx=ptx,
    )
    trainer = PolicyTrainer(
        policy, method, task, rollouts, stage=stage, log=log, device=device, checkpoints=out / "training"
    )
    if held_out:
        log.event(stage, "note", text=f"answers {len(held_out):,} held-out prompts now and at the end, to measure it")
    before = trainer.measure(held_out) if held_out else {}
    log.event(stage, "start", steps=steps, trained_parameters=trained, lora_rank=rank, prompts=len(train))
    result = trainer.train()
    after = trainer.measure(held_out) if held_out else {}
    if after:
        log.event(stage, "eval", step=result.last_step, **after)
    if lora is not None:
        save_adapter(model, out / "adapter", base=spec.model, names=names_of(loaded.run))
        fold(model)
    write_model(loaded, out, stage, result.last_step, chats=loaded.chats)
    done = PolicyTrained(
        out,
        result.last_step,
        trained,
        parameter_count(model),
        len(train),
        len(held_out),
        plain,
        before,
        after,
    )
    facts: dict[str, Any] = {"path": str(out), "lr": rate, "lora_rank": rank, "commit": commit()}
    facts["versions"] = {name: importlib.metadata.version(name) for name in ("underhood", "torch")}
    write_text(out / "results.json", json.dumps(asdict(done) | facts, indent=1))
    shutil.rmtree(out / "training", ignore_errors=True)
    log.event(stage, "end", seconds=result.seconds, tokens=result.tokens, **after)
    return done


def policy_prompts(
    loaded: LoadedModel,
    records: Sequence[PromptRecord],
    context_length: int,
    max_new_tokens: int,
    log: RunLog,
    stage: str,
) -> tuple[list[PolicyPrompt], int]:
    """The prompts as the model reads them, and how many are plain text for want of a template; both warned about.

    Raises:
        UserError: none fits into the context, or a conversation of several turns meets a model without a template.
    """
    template = loaded.template
    prompts: list[PolicyPrompt] = []
    for each in records:
        if template is not None:
            ids = template.render(loaded.tokenizer, each.messages, add_generation_prompt=True).ids
        elif len(each.messages) > 1:
            raise UserError(
                f"{each.where} is a conversation, and {loaded.run} has no chat template",
                fix="Fine-tune it on conversations first (underhood finetune), or give prompts as text",
            )
        else:
            ids = loaded.prompt_ids(each.text)
        if len(ids) + max_new_tokens <= context_length:
            prompts.append(PolicyPrompt(ids, each.text, each.record, each.messages))
    if template is None:
        text = f"warning: the model has no chat template: {len(prompts):,} prompts are continued as plain text"
        log.event(stage, "note", text=text)
    if dropped := len(records) - len(prompts):
        room = f"{context_length:,} tokens with {max_new_tokens:,} for the answer"
        log.event(stage, "note", text=f"warning: {dropped:,} prompts are left out, too long for {room}")
    if not prompts:
        raise UserError(
            f"no prompt fits into the model's context of {context_length:,} tokens",
            fix="Give a smaller --max-new-tokens, or shorter prompts",
        )
    return prompts, len(prompts) if template is None else 0


def split_prompts(
    prompts: Sequence[PolicyPrompt], share: float, seed: int
) -> tuple[list[PolicyPrompt], list[PolicyPrompt]]:
    """Prompts to learn from, and at most `MEASURED` to measure by: `share` of all, if that leaves any to learn from."""
    count = min(MEASURED, int(share * len(prompts)), len(prompts) - 1)
    order = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    return [prompts[number] for number in sorted(order[count:])], [prompts[number] for number in sorted(order[:count])]


def text_batches(loaded: LoadedModel, path: Path, seed: int) -> Callable[[int], Batch]:
    """Windows of a text by number, one per update, for PPO-ptx.

    Raises:
        UserError: the text is shorter than a window.
    """
    ids = np.asarray(loaded.prompt_ids(read_filled_text(path)), np.int64)
    length = min(loaded.decoder.context_length, 256)
    if len(ids) <= length:
        raise UserError(f"{path} is too short", expected=f"more than {length} tokens", got=str(len(ids)))
    count = max(1, PTX_TOKENS // length)

    def batch(number: int) -> Batch:
        starts = np.random.default_rng([seed, number]).integers(0, len(ids) - length, count)
        windows_BT = torch.from_numpy(np.stack([ids[start : start + length + 1] for start in starts]))
        return Batch(windows_BT[:, :-1], windows_BT[:, 1:])

    return batch


def _adapt(model: Decoder, spec: GRPOSettings | PPOSettings, rank: int) -> LoRASpec | None:
    """Gives the model adapters; None means that all weights learn."""
    if rank == 0:
        model.requires_grad_(True)
        return None
    alpha = spec.lora_alpha if spec.lora_alpha is not None else 2.0 * rank
    lora = LoRASpec(rank=rank, alpha=alpha, targets=spec.lora_targets)
    lora.apply(model, seed=spec.seed)
    return lora
