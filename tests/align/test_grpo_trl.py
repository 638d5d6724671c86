"""GRPO against trl: losses, gradients and advantages of its own trainer, to 1e-5."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sampled_answers import batch, random_NT
from torch import Tensor

from underhood.align.grpo import group_advantages, grpo_loss
from underhood.align.policy_specs import GRPOSpec, Normaliser

pytestmark = pytest.mark.slow  # importing trl takes seconds

MASK = batch(rows=8).response_mask_NT
LONGEST = 9
LOSS_TYPES: dict[Normaliser, str] = {
    "sequence": "grpo",
    "local-token": "bnpo",
    "global-token": "dapo",
    "dr-grpo": "dr_grpo",
}


def trl_loss(logp: Tensor, old: Tensor, advantages_N: Tensor, ref: Tensor, spec: GRPOSpec) -> Tensor:
    """`GRPOTrainer._compute_loss` itself, on a trainer that has only what that method reads."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    accelerator = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            steps_per_generation=1,
        ),
        accelerator=accelerator,
        current_gradient_accumulation_steps=1,
        loss_type=LOSS_TYPES[spec.normaliser],
        beta=spec.beta,
        epsilon_low=spec.clip_low,
        epsilon_high=spec.clip_high,
        max_completion_length=LONGEST,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logp, torch.zeros_like(logp), None),
    )
    none = torch.zeros(8, 0, dtype=torch.long)
    inputs: dict[str, Any] = {
        "prompt_ids": none,
        "prompt_mask": none,
        "completion_ids": torch.zeros_like(MASK, dtype=torch.long),
        "completion_mask": MASK.long(),
        "advantages": advantages_N,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": MASK.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("normaliser", LOSS_TYPES)
def test_grpo_loss_and_gradient_match_trl(normaliser: Normaliser, beta: float):
    spec = GRPOSpec(normaliser=normaliser, beta=beta, clip_low=0.2, clip_high=0.28)
    old, advantages_N = random_NT(MASK, 1), torch.randn(8, generator=torch.Generator().manual_seed(3)).double()
    ref = old + random_NT(MASK, 4, scale=0.5)
    logp = (old + random_NT(MASK, 2, scale=0.3)).requires_grad_(True)
    ours = grpo_loss(logp, old, advantages_N, MASK, spec=spec, ref_logp_NT=ref, max_new_tokens=LONGEST)
    theirs = trl_loss(logp, old, advantages_N, ref, spec)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    [gradient], [their_gradient] = torch.autograd.grad(ours, logp), torch.autograd.grad(theirs, logp)
    assert torch.allclose(gradient, their_gradient, atol=1e-5)
    other = next(each for each in LOSS_TYPES if each not in (normaliser, "local-token", "global-token"))
    wrong = trl_loss(logp, old, advantages_N, ref, GRPOSpec(normaliser=other, beta=beta))
    assert abs(float(wrong) - float(ours)) > 1e-4  # the oracle tells the normalisers apart


@pytest.mark.parametrize("scale_std", [True, False])
def test_advantages_match_those_of_a_trl_trainer(scale_std: bool, tmp_path: Any):
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    words = ["<pad>", "<eos>", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_positions=32, n_embd=16, n_layer=1, n_head=2))
    given: list[list[float]] = []

    def reward(completions: list[str], **_: Any) -> list[float | None]:
        given.append([float(len(set(text))) for text in completions])
        return [*given[-1]]

    trainer = GRPOTrainer(
        model,
        reward,
        GRPOConfig(
            str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            scale_rewards="group" if scale_std else "none",
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a b", "c d"]}),
        processing_class=fast,
    )
    prompts = [{"prompt": "a b"}] * 4 + [{"prompt": "c d"}] * 4
    theirs = trainer._generate_and_score_completions(prompts)["advantages"]  # pyright: ignore[reportPrivateUsage]
    rewards_PG = torch.tensor(given[-1]).view(2, 4)
    assert rewards_PG.std(dim=1).max() > 0
    assert torch.allclose(group_advantages(rewards_PG, scale_std=scale_std).flatten(), theirs, atol=1e-5)
