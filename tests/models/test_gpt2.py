"""GPT-2's shape, first weights and training recipe, against transformers, closed forms and nanoGPT's formulas."""

from __future__ import annotations

import math

import pytest
import torch

from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.gpt2 import gpt2_initialized, gpt2_shaped, padded_vocabulary
from underhood.models.presets import count_parameters, preset
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.nanogpt import CPU_CHARACTERS, GPT2_124M
from underhood.train.optim import AdamWSpec

SHAPE = {"vocab_size": 61, "context_length": 24, "d_model": 32, "layers": 3, "heads": 4}


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads"),
    [("gpt2", 12, 768, 12), ("gpt2-medium", 24, 1024, 16), ("gpt2-large", 36, 1280, 20), ("gpt2-xl", 48, 1600, 25)],
)
def test_shape_is_that_of_the_published_model_and_counts_by_the_formula(name: str, layers: int, width: int, heads: int):
    spec = gpt2_shaped(vocab_size=50257, context_length=1024, d_model=width, layers=layers, heads=heads)
    assert spec == preset(name)
    formula = (50257 + 1024) * width + layers * (12 * width**2 + 13 * width) + 2 * width
    assert count_parameters(spec)[0] == formula


def test_logits_match_transformers_with_the_same_random_weights():
    transformers = pytest.importorskip("transformers")
    model = gpt2_initialized(gpt2_shaped(**SHAPE), seed=1).eval()
    config = transformers.GPT2Config(vocab_size=61, n_positions=24, n_embd=32, n_layer=3, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        state = {"wte.weight": model.embed.weight, "wpe.weight": model.position_embed.weight}  # type: ignore[union-attr]
        norms = {"ln_f": model.norm}
        for layer, block in enumerate(model.blocks):
            mixer, mlp = block.mixer, block.feedforward
            joined = [mixer.query, mixer.key, mixer.value]  # transformers' Conv1D holds the transposed matrix
            state[f"h.{layer}.attn.c_attn.weight"] = torch.cat([linear.weight for linear in joined]).T
            state[f"h.{layer}.attn.c_attn.bias"] = torch.cat([linear.bias for linear in joined])
            pairs = {"attn.c_proj": mixer.output, "mlp.c_fc": mlp.up, "mlp.c_proj": mlp.down}
            for theirs_name, linear in pairs.items():
                state[f"h.{layer}.{theirs_name}.weight"] = linear.weight.T
                state[f"h.{layer}.{theirs_name}.bias"] = linear.bias
            norms |= {f"h.{layer}.ln_1": block.mixer_norm, f"h.{layer}.ln_2": block.feedforward_norm}
        for theirs_name, norm in norms.items():
            state |= {f"{theirs_name}.weight": norm.weight, f"{theirs_name}.bias": norm.bias}
        theirs.transformer.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()})
        tokens = torch.randint(61, (3, 24), generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_first_weights_have_gpt2s_standard_deviations():
    model = gpt2_initialized(gpt2_shaped(**SHAPE | {"d_model": 128, "layers": 8}), seed=0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            expected = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert bool((parameter == expected).all()), name
        else:
            writes = name.endswith(("mixer.output.weight", "feedforward.down.weight"))
            expected = 0.02 / math.sqrt(2 * 8) if writes else 0.02
            assert float(parameter.std()) == pytest.approx(expected, rel=0.05), name


def test_vocabulary_is_padded_as_in_nanogpt():
    assert padded_vocabulary(50257) == 50304
    assert padded_vocabulary(50304) == 50304


@pytest.mark.parametrize("recipe", [CPU_CHARACTERS, GPT2_124M])
def test_schedule_matches_nanogpts_formula(recipe):
    """``get_lr`` of nanoGPT's train.py; the two may differ by what a step of warm-up is worth."""
    fit_spec = recipe.fit
    for step in [0, recipe.warmup // 2, recipe.warmup, recipe.steps // 2, recipe.steps - 1]:
        if step < recipe.warmup:
            expected = recipe.lr * (step + 1) / (recipe.warmup + 1)
        else:
            share = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
            expected = 0.1 * recipe.lr + 0.5 * (1 + math.cos(math.pi * share)) * 0.9 * recipe.lr
        actual = recipe.lr * fit_spec.schedule.lr_factor(step, recipe.steps)
        assert actual == pytest.approx(expected, abs=0.011 * recipe.lr)


def test_weight_decay_is_for_matrices_only():
    model = gpt2_initialized(gpt2_shaped(**SHAPE), seed=0)
    groups = GPT2_124M.optimizer.build(model).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())


def test_four_small_batches_make_the_update_of_a_large_one():
    """Gradient accumulation in the training loop: 64 rows at once and 4 × 16 end in the same weights."""
    rows = torch.randint(61, (3, 64, 25), generator=torch.Generator().manual_seed(0))
    ends = []
    for pieces in (1, 4):
        model = gpt2_initialized(gpt2_shaped(**SHAPE), seed=0)

        def batches(number: int, pieces: int = pieces) -> Batch:
            piece = rows[number // pieces].chunk(pieces)[number % pieces]
            return Batch(piece[:, :-1], piece[:, 1:])

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        spec = FitSpec(steps=3, accumulate=pieces, clip=1e9)
        fit(model, batches, next_token_loss_sum, optimizer, spec, stage="pretrain", log=RunLog(None))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)
    assert AdamWSpec().betas == GPT2_124M.betas
