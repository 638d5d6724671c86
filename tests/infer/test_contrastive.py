"""Contrastive search against the formula written out, every text read from its beginning."""

from __future__ import annotations

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.contrastive import contrastive_search
from underhood.infer.generate import Completion, generate

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER, seed=0)
PROMPT = TOKENIZER.encode("The list is")


@torch.no_grad()
def by_hand(prompt: list[int], k: int, alpha: float, count: int, stops: list[int]) -> Completion:
    ids, done = list(prompt), Completion()
    while len(done.ids) < count:
        probs = MODEL(torch.tensor([ids]))[0, -1].softmax(-1)
        scores = {}
        for token in probs.topk(k).indices.tolist():
            states = MODEL.hidden_states(torch.tensor([[*ids, token]]))[0]
            likeness = torch.cosine_similarity(states[-1:], states[:-1], dim=-1).max()
            scores[token] = float((1 - alpha) * probs[token] - alpha * likeness)
        token = max(scores, key=lambda token_id: scores[token_id])
        if token in stops:
            return Completion(done.ids, "stop", done.logprobs, token)
        ids.append(token)
        done.ids.append(token)
        done.logprobs.append(float(probs[token].log()))
    return done


@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (7, 0.2), (3, 1.0)])
def test_contrastive_search_matches_the_formula_by_hand(k: int, alpha: float) -> None:
    endless = by_hand(PROMPT, k, alpha, 10, [])
    for stops in ([], [endless.ids[6]]):
        expected = by_hand(PROMPT, k, alpha, 10, stops)
        actual = contrastive_search(MODEL, PROMPT, k=k, alpha=alpha, max_new_tokens=10, stop_ids=stops)
        assert (actual.ids, actual.finish, actual.stop_id) == (expected.ids, expected.finish, expected.stop_id)
        assert actual.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert endless.ids != contrastive_search(MODEL, PROMPT, k=k, alpha=0, max_new_tokens=10).ids


def test_without_the_penalty_or_alternatives_it_is_greedy() -> None:
    [greedy] = generate(MODEL, [PROMPT], max_new_tokens=20)
    for options in ({"alpha": 0.0}, {"k": 1, "alpha": 0.9}):
        assert contrastive_search(MODEL, PROMPT, max_new_tokens=20, **options).ids == greedy.ids


def test_the_context_ends_it_and_values_out_of_range_are_refused() -> None:
    model = tiny_model(TOKENIZER, seed=0, context=12)
    done = contrastive_search(model, list(range(10)), max_new_tokens=50)
    assert (len(done.ids), done.finish) == (2, "length")
    assert contrastive_search(model, list(range(12)), max_new_tokens=50).ids == []
    for wrong in ({"k": 0}, {"alpha": 1.1}, {"alpha": -0.1}):
        with pytest.raises(UserError, match="is out of range"):
            contrastive_search(model, [1], **wrong)
