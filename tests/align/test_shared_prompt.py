"""Shared prompts: the same scores and gradients as whole rows, in fewer tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_dpo import END, VOCAB, model, pairs

from underhood.align.dpo import DPOLoss, DPOSpec, pair_log_probs, score_all_pairs, sequence_log_probs
from underhood.align.pairs import Marked, PairBatches
from underhood.align.shared_prompt import RowAttention, pair_line, shareable
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.models.gpt2 import gpt2_shaped
from underhood.nn.attention import AttentionSpec


def long_pairs(count: int, prompt: int = 9, seed: int = 0) -> list[tuple[Marked, Marked]]:
    """Prompts and answers of random lengths; some answers begin alike."""
    generator, made = np.random.default_rng(seed), []
    for number in range(count):
        question = generator.integers(0, 18, generator.integers(1, prompt)).tolist()
        opening = generator.integers(0, 18, number % 3).tolist()
        sides = [[*opening, *generator.integers(0, 18, generator.integers(1, 6)).tolist(), END] for _ in (0, 1)]
        chosen, rejected = (([*question, *side], [False] * len(question) + [True] * len(side)) for side in sides)
        made.append((chosen, rejected))
    return made


def spec_of(name: str) -> DecoderSpec:
    if name == "gpt2":
        return gpt2_shaped(vocab_size=VOCAB, context_length=32, d_model=16, layers=2, heads=2)
    spec = qwen3_shaped(vocab_size=VOCAB, context_length=32, d_model=16, layers=2, heads=4, kv_heads=2, d_ff=32)
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, AttentionSpec)
    change = {"window": {"window": 3}, "softcap": {"softcap": 2.0}}.get(name, {})
    return replace(spec, blocks=(replace(spec.blocks[0], mixer=replace(mixer, **change)),), tied=name == "tied")


def random_model(name: str) -> Decoder:
    built = spec_of(name).initialize(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return built


@pytest.mark.parametrize("name", ["grouped", "window", "softcap", "tied", "gpt2"])
def test_shared_prompt_has_the_scores_and_gradients_of_whole_rows(name: str):
    policy = random_model(name)
    batch = PairBatches(long_pairs(7), batch_size=7, seed=0)(0)
    weight_B = torch.randn(14, generator=torch.Generator().manual_seed(2))
    results = []
    for least_saved in (2.0, -1.0):  # never, always
        policy.zero_grad()
        scores_B = pair_log_probs(policy, batch.rows, least_saved=least_saved)
        (scores_B * weight_B).sum().backward()
        gradients = {key: p.grad.clone() for key, p in policy.named_parameters() if p.grad is not None}
        results.append((scores_B.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert results[0][1].keys() == results[1][1].keys()
    for key, whole in results[0][1].items():
        torch.testing.assert_close(results[1][1][key], whole, rtol=1e-5, atol=1e-5, msg=key)


def test_pair_line_holds_each_prompt_once_and_no_padding():
    made = long_pairs(5)
    batch = PairBatches(made, batch_size=5, seed=0)(0)
    line = pair_line(batch.rows)
    expected = 0
    for chosen, rejected in made:
        inputs = [list(side[0][:-1]) for side in (chosen, rejected)]
        alike = next((i for i, (a, b) in enumerate(zip(*inputs, strict=False)) if a != b), min(map(len, inputs)))
        expected += sum(map(len, inputs)) - alike
    assert line.tokens_1M.shape[1] == expected
    assert line.saved == pytest.approx(1 - expected / batch.rows.tokens.numel())
    assert batch.rows.positions is not None
    real_BT = batch.rows.positions >= 0
    torch.testing.assert_close(line.tokens_1M[0][line.index_BT][real_BT], batch.rows.tokens[real_BT])
    torch.testing.assert_close(line.positions_1M[0][line.index_BT][real_BT], batch.rows.positions[real_BT])
    torch.testing.assert_close(batch.rows.tokens.flatten()[line.back_M], line.tokens_1M[0])


def test_pair_line_without_positions_or_with_nothing_in_common():
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 9], [7, 5, 6]])
    line = pair_line(Batch(tokens, tokens))
    assert line.tokens_1M.tolist() == [[1, 2, 3, 9, 4, 5, 6, 7, 5, 6]]
    assert line.positions_1M.tolist() == [[0, 1, 2, 2, 0, 1, 2, 0, 1, 2]]
    assert line.saved == pytest.approx(2 / 12)


def test_answers_do_not_see_each_other():
    """Another rejected answer leaves the chosen one's score alone."""
    policy, (pair, other) = random_model("grouped"), long_pairs(2, seed=5)
    changed = (pair[0], ([*pair[1][0][:-2], 1, END], pair[1][1]))
    scores = [
        pair_log_probs(policy, PairBatches([p, other], batch_size=2, seed=0)(0).rows, least_saved=-1)[
            PairBatches([p, other], batch_size=2, seed=0)(0).pairs_N.argmin()
        ]
        for p in (pair, changed)
    ]
    torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-6)


def test_dpo_loss_reads_a_shared_prompt_once_and_falls_back_where_it_can_not():
    policy, given = random_model("grouped"), long_pairs(6, prompt=20)
    batches = PairBatches(given, batch_size=6, seed=0)
    read: list[int] = []
    policy.embed.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    loss_fn = DPOLoss(score_all_pairs(policy, batches), DPOSpec())
    read.clear()
    loss_fn(policy, batches(0))
    assert read == [pair_line(batches(0).rows).tokens_1M.numel()]
    policy.checkpointing = True
    assert not shareable(policy.train())
    read.clear()
    loss_fn(policy, batches(0))
    assert read == [batches(0).rows.tokens.numel()]
    policy.checkpointing = False
    assert shareable(policy)
    assert not shareable(torch.nn.Linear(2, 2))


def test_row_attention_refuses_layers_with_a_state_of_their_own():
    batch = PairBatches(pairs(2), batch_size=2, seed=0)(0)
    with pytest.raises(NotImplementedError):
        RowAttention(pair_line(batch.rows)).recent(0, torch.zeros(1, 2, 3), 1)


def test_whole_rows_and_shared_rows_agree_on_a_model_in_double_precision():
    policy = model(torch.float64)
    batch = PairBatches(pairs(), batch_size=24, seed=0)(0)
    torch.testing.assert_close(
        pair_log_probs(policy, batch.rows, least_saved=-1), sequence_log_probs(policy, batch.rows)
    )
