"""Activations over a corpus, beside traces of single prompts."""

from __future__ import annotations

import pytest
import torch
from traced import opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import corpus_values, token_windows
from underhood.inspect.trace import trace

TEXTS = ["".join(chr(0x100 + (7 * n + n * n) % 90 + 3) for n in range(count)) for count in (30, 1, 45)]


@pytest.fixture(scope="module", params=["gpt2", "mixtral", "mistral"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


def test_windows_hold_every_token_in_order(loaded: LoadedModel):
    windows = token_windows(loaded, TEXTS, length=10)
    expected = loaded.prompt_ids(TEXTS[0]) + loaded.prompt_ids(TEXTS[2])
    assert [id for window in windows for id in window] == expected
    assert [len(window) for window in windows] == [10, 10, 10, 10, 10, 10, 10, 10, 5][1:]
    assert token_windows(loaded, TEXTS, length=10, count=2) == windows[:2]


def test_values_are_those_of_a_trace_of_each_window(loaded: LoadedModel):
    windows = token_windows(loaded, TEXTS, length=10)
    sites = ["residual.1", "feedforward.0"]
    sites += ["router.1"] if loaded.spec.facts()["Feed-forward"].startswith("4 experts") else ["units.1"]
    values = corpus_values(loaded, windows, sites)
    for number, window in enumerate(windows):
        recorded = trace(loaded, window, sites)
        for site in sites:
            assert torch.allclose(values[site][values.windows == number], recorded[site], atol=1e-5)
    assert values.ids.tolist() == [id for window in windows for id in window]
    assert values.positions[:11].tolist() == [*range(10), 0]


def test_mistakes_are_explained(loaded: LoadedModel):
    with pytest.raises(UserError, match="a vector for each head"):
        corpus_values(loaded, [[1, 2, 3]], ["key.0"])
    with pytest.raises(UserError, match="no token to look at"):
        token_windows(loaded, ["Ā"])
    with pytest.raises(UserError, match="allow more with limit_mb"):
        corpus_values(loaded, [[1, 2, 3]], ["residual"], limit_mb=1e-6)


def test_a_pass_ends_with_its_last_site(loaded: LoadedModel):
    windows = token_windows(loaded, TEXTS, length=10)
    passed: list[int] = []
    model = loaded.decoder
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: passed.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    handles.append(model.unembed.register_forward_hook(lambda *_: passed.append(-1)))
    early = corpus_values(loaded, windows, ["residual.1"])
    assert set(passed) == {0}
    whole = corpus_values(loaded, windows, ["residual.1", "logits"])
    assert set(passed) == {*range(len(model.blocks)), -1}
    for handle in handles:
        handle.remove()
    assert torch.equal(early["residual.1"], whole["residual.1"])
