"""Linear probes beside scikit-learn's logistic regression; control tasks and untrained models tell them apart."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from traced import opened
from trained_model import trained

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import token_windows
from underhood.inspect.probes import DECAY, control_labels, probe_layers, train_probe, untrained_like
from underhood.inspect.tuned_lens import lens_divergences


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("trained"))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_probe_is_scikit_learns_logistic_regression():
    x_ND, labels_N = normal(300, 6) * 3 + 1, torch.arange(300) % 3
    x_ND[:, 0] += labels_N
    probe = train_probe(x_ND, labels_N, 3, iterations=300)
    z_ND = (x_ND - probe.mean) / probe.scale
    # Their penalty is half the squared norm beside the sum, weighed by C.
    peer = LogisticRegression(C=1 / (2 * DECAY * 300), max_iter=2000, tol=1e-9).fit(z_ND.numpy(), labels_N.numpy())
    expected = torch.tensor(peer.predict_proba(z_ND.numpy()))
    assert torch.allclose(probe.scores(x_ND).softmax(dim=1), expected, atol=1e-3)
    assert probe.accuracy(x_ND, labels_N) == pytest.approx(peer.score(z_ND.numpy(), labels_N.numpy()))


def test_control_labels_belong_to_words_and_are_as_frequent():
    words_N = torch.arange(3000) % 1000
    labels_N = (torch.arange(3000) % 10 == 0).long()
    control_N = control_labels(words_N, labels_N)
    assert torch.equal(control_N[:1000], control_N[1000:2000])
    assert float(control_N.float().mean()) == pytest.approx(0.1, abs=0.03)
    assert not torch.equal(control_N, control_labels(words_N, labels_N, seed=1))


def test_an_untrained_model_has_the_same_numbers_and_has_learnt_nothing(loaded: LoadedModel):
    fresh = untrained_like(loaded)
    for ours, theirs in zip(loaded.decoder.parameters(), fresh.decoder.parameters(), strict=True):
        assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values)
    text = "The list is mutable and holds 3 items of a tuple."
    windows = torch.tensor(token_windows(loaded, [text]))
    losses = []
    for model in (loaded.decoder, fresh.decoder):
        with torch.no_grad():
            scores_BTV = model(windows)[:, :-1]
        losses.append(float(torch.nn.functional.cross_entropy(scores_BTV[0], windows[0, 1:])))
    assert losses[0] < losses[1] - 1
    assert lens_divergences(fresh, [text]).isfinite().all()


def sentences() -> list[str]:
    """Words after either of two openings; later tokens know the opening only by attention."""
    words = ["list", "tuple", "string", "number", "table", "letter", "value", "key"]
    return [
        ("The " if n % 2 else "A ") + " ".join(words[(n * step + n // 8) % 8] for step in (1, 3, 5)) for n in range(64)
    ]


def test_control_task_and_untrained_model_show_what_a_probe_owes_to_words(loaded: LoadedModel):
    windows = token_windows(loaded, sentences())
    # A question about the token alone: whether its id is even. The embedding answers it, and so it does at random.
    labels = [[id % 2 for id in window] for window in windows]
    start, *_ = probe_layers(loaded, windows, labels, sites=["residual.0"])
    assert start.accuracy > 0.95
    assert start.control > 0.9  # the words are as easily learnt with labels at random
    assert abs(start.selectivity) < 0.1
    assert start.untrained is not None
    assert start.untrained > 0.9


def test_a_question_about_the_context_is_selective(loaded: LoadedModel):
    windows = token_windows(loaded, sentences())
    opening = [int(sentence.startswith("The")) for sentence in sentences()]
    labels = [
        [None if position < 3 else opening[number] for position in range(len(window))]
        for number, window in enumerate(windows)
    ]
    results = {result.site: result for result in probe_layers(loaded, windows, labels)}
    first, later = results["residual.0"], results["residual.2"]
    assert first.accuracy < 0.75  # the tokens themselves do not tell
    assert later.accuracy > first.accuracy + 0.1
    assert later.selectivity > first.selectivity + 0.1
    assert later.majority < 0.75


def test_mistakes_are_explained(loaded: LoadedModel):
    windows = [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(UserError, match="do not fit"):
        probe_layers(loaded, windows, [[0, 1], [0, 1, 1]])
    with pytest.raises(UserError, match="two classes"):
        probe_layers(loaded, windows, [[0, 0, 0], [0, 0, None]])
    with pytest.raises(UserError, match="too few windows"):
        probe_layers(loaded, windows[:1], [[0, 1, 0]])


def test_tied_weights_stay_tied(tmp_path):
    loaded, _ = opened("qwen3", tmp_path)
    fresh = untrained_like(loaded).decoder
    assert fresh.unembed.weight is fresh.embed.weight
