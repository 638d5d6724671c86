"""Accumulation, checkpointing and packing change the memory and the speed of training, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from underhood.align.sft import SFTLoss
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.runlog import RunLog
from underhood.data.batch import IGNORE, Batch
from underhood.data.render import ChatBatches, padded
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.nn.lora import LoRASpec
from underhood.text.chat import Rendered
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec


def model(layers: int = 2) -> Decoder:
    spec = qwen3_shaped(vocab_size=40, context_length=24, d_model=32, layers=layers, heads=2, d_ff=64)
    return spec.initialize(seed=0)


def examples() -> list[Rendered]:
    """Conversations of many lengths and very different shares of answers."""
    generator = torch.Generator().manual_seed(0)
    actual = []
    for number in range(24):
        question_length, output = 2 + number % 3, 1 + (number * 7) % 17
        ids = torch.randint(40, (question_length + output,), generator=generator).tolist()
        actual.append(Rendered(ids, [False] * question_length + [True] * output))
    return actual


def trained(rows: int, accumulate: int, *, global_count: bool = True) -> tuple[list[Tensor], list[dict]]:
    """Without the global target count every micro-batch's mean counts alike: the ablation."""
    tuned, log, heard = model(), RunLog(None), []
    log.listeners.append(heard.append)
    batches, sft_loss = ChatBatches(examples(), batch_size=rows, context_length=24, seed=3), SFTLoss()

    def mean_of_means(model: Decoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        total, metrics = sft_loss(model, batch)
        update = len(heard)
        targets = sum(batches(update * accumulate + i).target_count for i in range(accumulate))
        return total / batch.target_count * targets / accumulate, metrics

    loss_fn = sft_loss if global_count else mean_of_means
    spec = FitSpec(steps=4, accumulate=accumulate)
    fit(tuned, batches, loss_fn, AdamWSpec(lr=0.01, eps=1e-4).build(tuned), spec, stage="sft", log=log)
    return [parameter.detach() for parameter in tuned.parameters()], heard


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_steps_equal_the_big_batch(accumulate: int):
    (big, heard_big), (small, heard) = trained(4, 1), trained(4 // accumulate, accumulate)
    for mine, other in zip(small, big, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    for mine, other in zip(heard, heard_big, strict=True):
        assert mine["kind"] == other["kind"] == "step"
        for name in ("tokens", "targets"):
            assert mine[name] == other[name]
        for name in ("loss", "grad_norm", "answer_accuracy"):
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-6)


def test_accumulated_means_of_means_are_another_training():
    """The ablation: micro-batches that all count alike."""
    big, _ = trained(4, 1)
    small, _ = trained(1, 4, global_count=False)
    assert max(float((mine - other).abs().max()) for mine, other in zip(small, big, strict=True)) > 1e-3


def gradients(tuned: Decoder, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    tuned.train()
    tuned.zero_grad()
    loss = next_token_loss(tuned, batch)
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in tuned.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True])
def test_checkpointing_gives_the_same_gradients(lora: bool):
    tuned = model()
    if lora:
        LoRASpec(rank=2).apply(tuned)
        for name, parameter in tuned.named_parameters():
            if name.endswith("lora_B"):
                parameter.data.normal_(0, 0.1)
    batch = ChatBatches(examples(), batch_size=3, context_length=24, seed=0)(0)
    plain = gradients(tuned, batch)
    tuned.checkpointing = True
    again = gradients(tuned, batch)
    assert again[0] == plain[0]
    assert again[1].keys() == plain[1].keys()
    for name, grad in plain[1].items():
        torch.testing.assert_close(again[1][name], grad, rtol=1e-5, atol=1e-7)


def kept_for_backward(tuned: Decoder, batch: Batch) -> int:
    """Bytes of the tensors that forward keeps, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in tuned.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tuned.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = tuned.hidden_states(batch.tokens, positions=batch.positions)
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_checkpointing_keeps_a_small_part_of_the_activations():
    tuned = model(layers=6)
    batch = ChatBatches(examples(), batch_size=4, context_length=24, seed=0)(0)
    whole = kept_for_backward(tuned, batch)
    tuned.checkpointing = True
    assert kept_for_backward(tuned, batch) < whole / 5


def test_checkpointing_leaves_evaluation_and_caches_alone():
    tuned = model().eval()
    tokens = torch.arange(8)[None]
    plain = tuned(tokens)
    tuned.checkpointing = True
    assert torch.equal(tuned(tokens), plain)


def test_packed_conversations_give_the_loss_and_gradients_of_single_ones():
    tuned = model()
    packed = ChatBatches(examples(), batch_size=1, context_length=24, seed=0)
    whole = [packed(row) for row in range(packed.rows_per_epoch)]
    assert len(whole) < len(examples()) / 1.5, "several to a row, or this shows nothing"
    batch = Batch(
        *(torch.cat(parts) for parts in zip(*((b.tokens, b.targets, b.positions) for b in whole), strict=True))
    )
    single = padded(examples())
    assert int((batch.targets != IGNORE).sum()) == int((single.targets != IGNORE).sum())
    mine, other = gradients(tuned, batch), gradients(tuned, single)
    assert mine[0] == pytest.approx(other[0], rel=1e-5)
    for name, grad in other[1].items():
        torch.testing.assert_close(mine[1][name], grad, rtol=1e-3, atol=1e-6)


def test_packed_conversations_that_attend_across_give_another_loss():
    """The ablation: rows read as one document."""
    tuned = model()
    for parameter in tuned.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    batch = ChatBatches(examples(), batch_size=4, context_length=24, seed=0)(0)
    with torch.no_grad():
        apart = next_token_loss(tuned, batch)
        across = next_token_loss(tuned, Batch(batch.tokens, batch.targets, None))
    assert abs(float(apart - across)) > 1e-3


def test_checkpoints_of_an_adapter_hold_only_what_learns_and_resume_exactly(tmp_path: Path):
    def run(folder: Path | None, steps: int) -> Decoder:
        tuned = model()
        LoRASpec(rank=2).apply(tuned)
        batches = ChatBatches(examples(), batch_size=2, context_length=24, seed=3)
        spec = FitSpec(steps=steps, trained_only=True, schedule=ScheduleSpec(warmup=0, decay=0))
        optimizer = AdamWSpec(lr=0.01).build(tuned)
        fit(tuned, batches, SFTLoss(), optimizer, spec, stage="sft", log=RunLog(None), checkpoints=folder)
        return tuned

    whole = run(None, 6)
    run(tmp_path, 3)
    path = newest(tmp_path)
    assert path is not None
    assert all(name.endswith(("lora_A", "lora_B")) for name in read_checkpoint(path).tensors("model"))
    resumed = run(tmp_path, 6)
    for mine, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, other)
