"""Rollouts and new weights: what reinforcement learning needs of the engine."""

from __future__ import annotations

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.block_manager import BlockManager
from underhood.infer.engine import Engine, EngineSpec
from underhood.infer.generate import generate
from underhood.infer.request import Request
from underhood.infer.sample import SamplingSpec, distribution

TOKENIZER = tiny_tokenizer()
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [3] * 20]
STOPS = list(range(0, 270, 9))


def engine(seed: int = 0, **values: int) -> Engine:
    spec = EngineSpec(max_sequences=8, max_batched_tokens=64, cache_bytes=4 << 20, **values)
    return Engine(tiny_model(TOKENIZER, seed=seed), TOKENIZER, spec)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingSpec(seed=1),
        SamplingSpec(temperature=0.7, seed=1),
        SamplingSpec(temperature=0.7, top_k=12, seed=1),
        SamplingSpec(temperature=0.0),
    ],
    ids=["1", "0.7", "top-k", "greedy"],
)
def test_rollout_logprobs_are_those_of_the_sampling_distribution(sampling: SamplingSpec) -> None:
    running = engine()
    rollout = running.rollout(PROMPTS, 3, max_new_tokens=12, sampling=sampling, stop_ids=STOPS)
    assert rollout.ids_NT.shape[0] == 9
    with torch.no_grad():
        for row in range(9):
            length, prompt = int(rollout.mask_NT[row].sum()), PROMPTS[row // 3]
            ids = rollout.ids_NT[row, :length]
            assert ids[: len(prompt)].tolist() == prompt
            logits_TV = running.model(ids[None])[0, :-1]
            chances_T = distribution(logits_TV, sampling).log().float().gather(-1, ids[1:, None])[:, 0]
            model_T = logits_TV.log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            response = rollout.response_mask_NT[row]
            assert response.nonzero()[:, 0].tolist() == list(range(len(prompt), length))
            assert torch.allclose(rollout.logprobs_NT[row][response], chances_T[len(prompt) - 1 :], atol=1e-4)
            assert torch.allclose(rollout.model_logprobs_NT[row][response], model_T[len(prompt) - 1 :], atol=1e-4)
            assert not rollout.logprobs_NT[row][~response].any()
            ended = int(ids[-1]) in STOPS
            assert bool(rollout.finished_N[row]) == ended
            assert ended or length == len(prompt) + 12
    if not sampling.greedy:
        assert len({tuple(row.tolist()) for row in rollout.ids_NT}) > 3


def test_rollout_prefills_a_prompt_once_per_group() -> None:
    running, read = engine(), []
    assert isinstance(running.model, torch.nn.Module)
    running.model.embed.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))  # type: ignore[union-attr]
    rollout = running.rollout([[7] * 30], 4, max_new_tokens=5, sampling=SamplingSpec(seed=0))
    assert int(rollout.response_mask_NT.sum()) == 20
    assert sum(read) == 30 + 4 * 4  # the last token of each is never read


def test_rollout_of_more_prompts_than_may_wait() -> None:
    rollout = engine(max_waiting=2).rollout([[n + 1] for n in range(30)], 2, max_new_tokens=3)
    assert rollout.ids_NT.shape == (60, 4)


@pytest.mark.parametrize("way", ["model", "state dict"])
def test_new_weights_give_the_new_models_answers(way: str) -> None:
    running, new = engine(0), tiny_model(TOKENIZER, seed=7)
    request = Request(prompt=[3] * 40, max_new_tokens=12)
    for model in (running.model, new):
        [expected] = generate(tiny_model(TOKENIZER, seed=0 if model is not new else 7), [[3] * 40], max_new_tokens=12)
        if model is new:
            running.update_weights(new if way == "model" else new.state_dict())
        handle = running.submit(request)
        assert [token.id for chunk in handle.chunks() for token in chunk.tokens] == expected.ids
        assert handle.usage.cached_tokens == 0


def test_without_the_drop_stale_keys_would_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ablation of the test above."""
    monkeypatch.setattr(BlockManager, "reset_prefix_cache", lambda self: None)
    running, new = engine(0), tiny_model(TOKENIZER, seed=7)
    list(running.submit(Request(prompt=[3] * 40, max_new_tokens=12)).chunks())
    running.update_weights(new)
    handle = running.submit(Request(prompt=[3] * 40, max_new_tokens=12, logprobs=0))
    written = [token for chunk in handle.chunks() for token in chunk.tokens]
    [expected] = generate(new, [[3] * 40], max_new_tokens=12)
    assert handle.usage.cached_tokens > 0
    assert [token.logprob for token in written] != pytest.approx(expected.logprobs, abs=1e-4)


def test_sequences_that_run_go_on_with_the_new_weights() -> None:
    running, new = engine(0), tiny_model(TOKENIZER, seed=7)
    handle = running.submit(Request(prompt=[5] * 20, max_new_tokens=12))
    for _ in range(4):
        running.step()
    running.update_weights(new)
    ids = [token.id for chunk in handle.chunks() for token in chunk.tokens]
    [expected] = generate(new, [[5] * 20 + ids[:4]], max_new_tokens=8)
    assert ids[4:] == expected.ids


def test_reset_prefix_cache_forgets_prompts_and_loses_no_block() -> None:
    running, request = engine(), Request(prompt=[3] * 40, max_new_tokens=2)
    for expected in (0, 32):
        handle = running.submit(request)
        list(handle.chunks())
        assert handle.usage.cached_tokens == expected
    running.reset_prefix_cache()
    assert running.stats().blocks_cached == running.stats().blocks_used == 0
    handle = running.submit(request)
    running.step()
    running.reset_prefix_cache()
    list(handle.chunks())
    assert handle.usage.cached_tokens == 0
    assert running.stats().blocks_used == 0


def test_weights_that_do_not_fit_are_refused() -> None:
    running = engine()
    with pytest.raises(UserError, match="don't fit the engine's model"):
        running.update_weights({"embed.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="can't take the place"):
        running.update_weights(tiny_model(TOKENIZER, seed=0, context=17))
