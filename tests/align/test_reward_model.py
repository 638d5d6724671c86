"""Reward models: losses against trl and by hand, where the score is read, and exact Bradley–Terry strengths."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_dpo import END, VOCAB, d, model
from torch import Tensor, nn

from underhood.align.bradley_terry import bradley_terry_strengths
from underhood.align.rankings import RankedAnswers, RankingBatches
from underhood.align.reward_model import RewardLoss, RewardModel, RewardSpec, bradley_terry_loss, ranking_loss
from underhood.core.checkpoint import load_module, module_tensors
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.models.decoder import qwen3_shaped
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec


def reward_model(dtype: torch.dtype = torch.float32) -> RewardModel:
    torch.manual_seed(0)
    return RewardSpec().build(model(torch.float32)).to(dtype)


def rankings(count: int, answers: int = 2, seed: int = 0) -> list[RankedAnswers]:
    """Texts whose rank is the number of letters 3 in them, most being best."""
    generator, made = np.random.default_rng(seed), []
    while len(made) < count:
        prompt = generator.integers(8, 18, generator.integers(1, 5)).tolist()
        texts, worth = [], generator.permutation(6)[:answers]
        for hits in worth:
            letters = [3] * int(hits) + generator.integers(4, 8, 6 - hits).tolist()
            texts.append([*prompt, *generator.permutation(letters).tolist(), END])
        ranks = (5 - worth).tolist()
        made.append(RankedAnswers(tuple(texts), tuple(ranks)))
    return made


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("center", [None, 0.01])
def test_reward_loss_and_its_gradient_match_trl(margin: bool, center: float | None):
    """trl's `RewardTrainer.compute_loss` on the same scores: chosen first, then rejected, of N pairs."""
    from trl.trainer.reward_trainer import RewardTrainer
    from trl_losses import Accelerator

    scores = torch.randn(12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    margin_N = torch.rand(6, generator=torch.Generator().manual_seed(1)) if margin else None

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=center),
        accelerator=Accelerator(),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs: dict[str, Any] = {} if margin_N is None else {"margin": margin_N}
    theirs = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=scores[:, None]), inputs)  # type: ignore[arg-type]
    margins = [None] * 6 if margin_N is None else margin_N.tolist()
    pairs = [RankedAnswers(([1, 2], [1, 3]), (0, 1), margin) for margin in margins]
    batch = next(RankingBatches(pairs, batch_size=6, seed=0).once())
    chosen_N, rejected_N = scores.chunk(2)
    by_row_N = torch.stack((chosen_N, rejected_N), 1).flatten()
    ours, extra = RewardLoss(center_weight=center or 0.0)(lambda *_: by_row_N, batch)  # type: ignore[arg-type]
    torch.testing.assert_close(ours / 6, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, scores, retain_graph=True)[0] for loss in (ours / 6, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    if center is None:
        torch.testing.assert_close(bradley_terry_loss(chosen_N, rejected_N, margin_N), theirs, rtol=1e-5, atol=1e-5)
    assert extra["preference_accuracy"] == int((chosen_N > rejected_N).sum())


def test_ranking_loss_by_hand_with_ties_and_missing_answers():
    scores_PK = d(2.0, 0.0, 1.0).expand(1, 3)
    soft = lambda x: math.log1p(math.exp(-x))  # noqa: E731
    assert float(ranking_loss(scores_PK)) == pytest.approx((soft(2) + soft(1) + soft(-1)) / 3)
    ranks_PK = torch.tensor([[0, 1, 1]])
    assert float(ranking_loss(scores_PK, ranks_PK)) == pytest.approx((soft(2) + soft(1)) / 2)
    ranks_PK = torch.tensor([[1, 0, -1]])
    assert float(ranking_loss(scores_PK, ranks_PK)) == pytest.approx(soft(-2))
    assert float(ranking_loss(scores_PK, ranks_PK, d(0.5))) == pytest.approx(soft(-2.5))


def _record_rows(calls: list[int], _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    calls.append(len(inputs[0]))


def test_ranking_of_k_answers_has_the_gradient_of_its_pairs_at_fewer_forward_passes():
    """K answers in one batch element: K rows; split into its K (K − 1) / 2 pairs: K (K − 1) rows, same gradient."""
    [ranking] = rankings(1, answers=4)
    order = sorted(range(4), key=ranking.ranks.__getitem__)
    pairs = [RankedAnswers((ranking.texts[i], ranking.texts[j]), (0, 1)) for i, j in itertools.combinations(order, 2)]
    gradients, rows = [], []
    for group in ([ranking], pairs):
        scorer = reward_model(torch.float64)
        calls: list[int] = []
        count_rows = partial(_record_rows, calls)
        scorer.register_forward_pre_hook(count_rows)
        batch = next(RankingBatches(group, batch_size=len(group), seed=0).once())
        loss, _ = RewardLoss()(scorer, batch)
        (loss / batch.target_count).backward()
        gradients.append([p.grad for p in scorer.parameters() if p.grad is not None])
        rows.append(sum(calls))
    assert rows == [4, 12]
    for together, split in zip(*gradients, strict=True):
        torch.testing.assert_close(together, split)


def test_reward_is_read_at_the_last_real_token_whatever_the_padding_is():
    """Pad ≠ end: neither more padding nor padding by the end-of-text token changes a score; cutting the end does."""
    scorer = reward_model(torch.float64)
    text = [9, 4, 3, END]

    def score(ids: list[int], positions: list[int]) -> float:
        return float(scorer(torch.tensor([ids]), torch.tensor([positions])).detach())

    plain = float(scorer(torch.tensor([text])).detach())
    for pad in (0, END, 5):
        assert score([*text, pad, pad], [0, 1, 2, 3, -1, -1]) == pytest.approx(plain, abs=1e-12)
    assert abs(score([*text[:-1], 0], [0, 1, 2, -1]) - plain) > 1e-6
    [hidden] = scorer.model.hidden_states(torch.tensor([text]))
    assert float(scorer.head(hidden[-1]).detach()) == pytest.approx(plain, abs=1e-6)


def test_reward_scores_do_not_depend_on_the_company_and_keep_the_order():
    scorer = reward_model(torch.float64)
    texts = [text for ranking in rankings(4, answers=3) for text in ranking.texts]
    together = scorer.scores(texts, batch_size=5)
    alone = torch.cat([scorer.scores([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_reward_head_starts_as_published():
    """N(0, 1 / (D + 1)) and a bias of zero: the variance over many heads, within its own error."""
    spec = qwen3_shaped(vocab_size=VOCAB, context_length=8, d_model=64, layers=1, heads=2, d_ff=32)
    decoder = spec.initialize(seed=0)
    torch.manual_seed(0)
    weights = torch.cat([RewardSpec().build(decoder).head.weight.detach().flatten() for _ in range(100)])
    assert float(weights.var() * 65) == pytest.approx(1, abs=5 * math.sqrt(2 / len(weights)))
    assert float(RewardSpec().build(decoder).head.bias.detach()) == 0
    assert float(RewardSpec(head_std=0.0).build(decoder).head.weight.detach().abs().max()) == 0


def test_reward_scores_are_not_rounded_under_autocast():
    """bf16 has 8 bits: the hidden state is rounded, but not the score, which differs from its bf16 neighbour."""
    scorer, texts = reward_model(), [text for ranking in rankings(8) for text in ranking.texts]
    exact_N = scorer.scores(texts)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_N = scorer.scores(texts)
    assert mixed_N.dtype == torch.float32
    assert float((mixed_N - mixed_N.bfloat16().float()).abs().max()) > 0
    torch.testing.assert_close(mixed_N, exact_N, rtol=0.1, atol=0.1)


def test_reward_normalisation_has_mean_zero_on_references_and_travels_with_the_weights():
    scorer = reward_model()
    references = [ranking.texts[0] for ranking in rankings(9)]
    before = scorer.scores(references)
    shift = scorer.normalize(references)
    assert shift == pytest.approx(float(before.mean()), abs=1e-6)
    torch.testing.assert_close(scorer.scores(references), before - shift)
    assert float(scorer.scores(references).mean()) == pytest.approx(0, abs=1e-6)
    tensors = module_tensors(scorer.head)
    assert "offset" in tensors
    again = RewardSpec().build(scorer.model)
    with torch.no_grad():
        load_module(again.head, tensors, "here")
    torch.testing.assert_close(again.scores(references), scorer.scores(references))
    assert scorer.normalize(references) == pytest.approx(0, abs=1e-6)


def test_reward_training_orders_unseen_answers_and_swapped_labels_turn_it_round():
    def train(examples: list[RankedAnswers]) -> float:
        scorer = reward_model()
        fit(
            scorer,
            RankingBatches(examples, batch_size=16, seed=0),
            RewardLoss(),
            AdamWSpec(lr=1e-2, weight_decay=0.0).build(scorer),
            FitSpec(steps=40),
            stage="reward",
            log=RunLog(None),
        )
        test = next(RankingBatches(rankings(60, seed=9), batch_size=60, seed=0).once())
        return RewardLoss()(scorer, test)[1]["preference_accuracy"] / 60

    given = rankings(96)
    assert train(given) > 0.9
    assert train([RankedAnswers(r.texts, r.ranks[::-1]) for r in given]) < 0.1


def test_ranking_batches_shards_hold_whole_prompts():
    batch = next(RankingBatches(rankings(5, answers=3), batch_size=5, seed=0).once())
    shards = [batch.shard(rank, 2) for rank in range(2)]
    assert [shard.target_count for shard in shards] == [3, 2]
    assert [len(shard.rows.tokens) for shard in shards] == [9, 6]
    torch.testing.assert_close(shards[0].rows.tokens[3:6], batch.rows.tokens[6:9])


def test_ranking_batches_read_each_prompt_once_per_epoch_and_name_mistakes():
    given = rankings(7)
    batches = RankingBatches(given, batch_size=3, seed=1)
    seen = [tuple(ids) for step in range(3) for ids in batches(step).rows.tokens.tolist()]
    assert sorted(tuple(i for i in ids if i) for ids in seen) == sorted(tuple(t) for r in given for t in r.texts)
    assert batches(1).rows.tokens.equal(batches(1).rows.tokens)
    with pytest.raises(UserError, match="compares nothing"):
        RankingBatches([RankedAnswers(([1], [2]), (1, 1))], batch_size=1, seed=0)
    with pytest.raises(UserError, match="too long"):
        RankingBatches(given, batch_size=1, seed=0, context_length=3)


def test_bradley_terry_strengths_match_logistic_regression():
    """The same likelihood: logistic regression without a penalty on the differences of indicator vectors."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    true_K = generator.normal(size=5)
    wins = np.zeros((5, 5))
    rows, labels = [], []
    for _ in range(400):
        i, j = generator.choice(5, 2, replace=False)
        won = generator.random() < 1 / (1 + math.exp(true_K[j] - true_K[i]))
        wins[(i, j) if won else (j, i)] += 1
        rows.append(np.eye(5)[i] - np.eye(5)[j])
        labels.append(int(won))
    oracle = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-12, max_iter=10_000).fit(rows, labels).coef_[0]
    ours = bradley_terry_strengths(torch.from_numpy(wins))
    np.testing.assert_allclose(ours.numpy(), oracle - oracle.mean(), atol=1e-5)


def test_bradley_terry_strengths_of_two_items_are_the_log_odds_and_trained_scores_reach_them():
    """8 wins of 10 are log 4 apart. A table of scores trained by `bradley_terry_loss` ends at the same strengths."""
    strengths = bradley_terry_strengths(torch.tensor([[0.0, 8.0], [2.0, 0.0]]))
    assert float(strengths[0] - strengths[1]) == pytest.approx(math.log(4), abs=1e-12)
    wins = torch.tensor([[0.0, 6.0, 9.0], [4.0, 0.0, 7.0], [1.0, 3.0, 0.0]], dtype=torch.float64)
    table = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([table], lr=1, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)
    i, j = (wins.nonzero()[:, side].repeat_interleave(wins[wins > 0].long()) for side in (0, 1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = bradley_terry_loss(table[i], table[j])
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    exact = bradley_terry_strengths(wins)
    torch.testing.assert_close(table.detach() - table.detach().mean(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wins", [[[0, 3], [0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, -1], [2, 0]]])
def test_bradley_terry_strengths_refuse_tables_without_a_finite_maximum(wins: list[list[int]]):
    with pytest.raises(ValueError, match=r"strengths|negative"):
        bradley_terry_strengths(torch.tensor(wins, dtype=torch.float64))
