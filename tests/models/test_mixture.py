"""A neural model mixed with an n-gram: the formula, what training sees, and what a checkpoint keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from underhood.core.checkpoint import module_tensors, read_checkpoint, write_checkpoint
from underhood.core.config import to_json
from underhood.infer.generate import generate
from underhood.infer.sample import GREEDY
from underhood.models.architectures import ARCHITECTURES
from underhood.models.mixture import Mixture, MixtureSpec, likeliest_share
from underhood.models.ngram import NGramSpec
from underhood.models.nplm import NPLMSpec
from underhood.models.restore import restore

V = 17
TEXT = [[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 4], [6, 7, 8, 6, 7, 8]]


def mixture(share: float = 0.3) -> Mixture:
    neural = NPLMSpec(vocab_size=V, order=4, d_model=6, hidden=5)
    model = MixtureSpec(neural=neural, counted=NGramSpec(vocab_size=V, order=3), share=share).initialize(seed=0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.5
    model.count_documents(TEXT)
    return model.eval()


def test_mixture_is_the_weighted_sum_of_both_distributions():
    model, tokens = mixture(), torch.randint(V, (2, 9))
    expected = 0.3 * model.neural(tokens).softmax(-1) + 0.7 * model.counted(tokens).exp()
    torch.testing.assert_close(model(tokens).exp(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(tokens).exp().sum(-1), torch.ones(2, 9), rtol=1e-5, atol=1e-5)


def test_target_log_probs_are_those_of_the_whole_distribution():
    model, tokens, targets = mixture(), torch.randint(V, (2, 9)), torch.randint(V, (2, 9))
    targets[0, 3] = -100
    expected = model(tokens).gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets >= 0)
    actual = model.target_log_probs(tokens, targets)
    torch.testing.assert_close(actual.float(), expected, rtol=1e-5, atol=1e-5)


def test_training_sees_the_neural_model_alone():
    model, tokens = mixture(), torch.randint(V, (2, 9))
    assert not torch.allclose(model(tokens), model.neural(tokens))
    model.train()
    assert torch.equal(model(tokens), model.neural(tokens))


def test_restored_mixture_scores_as_before(tmp_path: Path):
    model, tokens = mixture(), torch.randint(V, (2, 9))
    path = write_checkpoint(tmp_path, 1, {"model": module_tensors(model)}, {"spec": to_json(model.spec, tagged=True)})
    again = restore(read_checkpoint(path))
    assert torch.equal(again(tokens), model(tokens))


def test_mixture_writes_what_its_scores_say():
    model = mixture()
    done = generate(model, [[1, 2], [6, 7, 8]], max_new_tokens=12, sampling=GREEDY)
    for prompt, written in zip([[1, 2], [6, 7, 8]], done, strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert written.ids == ids[len(prompt) :]


def test_likeliest_share_is_that_of_a_numerical_optimiser():
    rng = np.random.default_rng(0)
    p_N, q_N = rng.beta(2, 5, 400), rng.beta(2, 6, 400)
    loss = lambda share: -np.log(share * p_N + (1 - share) * q_N).mean()  # noqa: E731
    expected = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-8})["x"]
    assert 0.05 < expected < 0.95
    assert likeliest_share(np.log(p_N), np.log(q_N), rounds=5000) == pytest.approx(expected, abs=1e-4)


def test_mistakes_in_specs_are_named():
    neural = NPLMSpec(vocab_size=V)
    with pytest.raises(ValueError, match="same vocabulary"):
        MixtureSpec(neural=neural, counted=NGramSpec(vocab_size=V + 1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        MixtureSpec(neural=neural, counted=NGramSpec(vocab_size=V), share=1.0)


def test_architecture_is_half_and_half():
    spec = ARCHITECTURES["nplm-trigram"](vocab_size=V, context_length=16, d_model=12, layers=2, heads=2)
    assert isinstance(spec, MixtureSpec)
    assert (spec.share, spec.counted.order) == (0.5, 3)
