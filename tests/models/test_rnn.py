"""Recurrent language models and Bengio's: torch's own cells and formulas, gradients through documents, generation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from underhood.infer.generate import generate
from underhood.infer.sample import GREEDY
from underhood.models.architectures import ARCHITECTURES
from underhood.models.base import parameter_count
from underhood.models.nplm import NPLMSpec
from underhood.models.rnn import RNN, RNNSpec
from underhood.nn.recurrence import Cell, RecurrenceSpec

V = 23
THEIRS: dict[Cell, type[nn.RNNBase]] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def recurrent(cell: Cell, **change: object) -> RNN:
    recurrence = RecurrenceSpec(cell=cell, projected=False)
    settings = {"vocab_size": V, "context_length": 32, "d_model": 10, "layers": 2, "recurrence": recurrence}
    model = RNNSpec(**settings | change).initialize(seed=0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.4
    return model


@pytest.mark.parametrize("cell", THEIRS)
def test_stacked_layers_are_torchs(cell: Cell):
    model = recurrent(cell)
    theirs = THEIRS[cell](10, 10, num_layers=2, batch_first=True)
    for layer, ours in enumerate(model.layers):
        for name, parameter in ours.cell.named_parameters():
            getattr(theirs, name.replace("l0", f"l{layer}")).data.copy_(parameter.data)
    tokens = torch.randint(V, (3, 9))
    expected = model.unembed(theirs(model.embed(tokens))[0])
    torch.testing.assert_close(model(tokens), expected, rtol=1e-6, atol=1e-6)


def test_lstm_is_its_equations():
    """Hochreiter and Schmidhuber 1997 with Gers et al. 2000, written out step by step."""
    model = recurrent("lstm", layers=1)
    cell, tokens = model.layers[0].cell, torch.randint(V, (1, 6))
    h, c = torch.zeros(10), torch.zeros(10)
    states = []
    for x in model.embed(tokens)[0]:
        i, f, g, o = (cell.weight_ih_l0 @ x + cell.bias_ih_l0 + cell.weight_hh_l0 @ h + cell.bias_hh_l0).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    torch.testing.assert_close(model.hidden_states(tokens)[0], torch.stack(states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", THEIRS)
def test_gradient_of_packed_documents_is_the_sum_of_theirs(cell: Cell):
    model = recurrent(cell)
    documents = [torch.randint(V, (length,)) for length in (4, 1, 6)]
    row = torch.cat(documents)[None]
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    model(row, positions=positions).square().sum().backward()
    packed = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for document in documents:
        model(document[None]).square().sum().backward()
    for ours, parameter in zip(packed, model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-4)


def test_fresh_lstm_remembers_and_scores_all_tokens_alike():
    model = recurrent("lstm").spec.initialize(seed=3)
    bias = model.layers[0].cell.bias_ih_l0
    assert bias[10:20].tolist() == [1.0] * 10
    assert bias[:10].abs().sum() + bias[20:].abs().sum() == 0
    assert model(torch.randint(V, (2, 5))).abs().max() == 0
    again = model.spec.initialize(seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("direct", [True, False])
def test_nplm_is_the_papers_formula(direct: bool):
    """y = b + W x + U tanh(d + H x), with the vectors of the last n − 1 words (Bengio et al. 2003, equation 1)."""
    model = NPLMSpec(vocab_size=V, order=4, d_model=5, hidden=7, direct=direct).initialize(seed=0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    tokens = torch.randint(V, (1, 8))
    logits_TV = model(tokens)[0]
    assert model.hidden is not None
    U, W = model.unembed.weight[:, :7], model.unembed.weight[:, 7:]
    for t in range(8):
        before = [model.embed.weight[tokens[0, s]] if s >= 0 else torch.zeros(5) for s in range(t - 2, t + 1)]
        x = torch.cat(before)
        y = model.unembed.bias + U @ torch.tanh(model.hidden.bias + model.hidden.weight @ x) + (W @ x if direct else 0)
        torch.testing.assert_close(logits_TV[t], y, rtol=1e-5, atol=1e-5)


def test_continuous_bag_of_words_scores_the_mean_of_the_last_vectors():
    model = NPLMSpec(vocab_size=V, order=4, d_model=5, hidden=0, bag=True).initialize(seed=0)
    model.unembed.weight.data = torch.randn(V, 5, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    scores_V = model(tokens)[0, -1]
    torch.testing.assert_close(scores_V, model.unembed(model.embed(tokens[0, 2:]).mean(0)))
    torch.testing.assert_close(scores_V, model(tokens[:, [0, 1, 4, 2, 3]])[0, -1])  # their order does not matter


def test_nplm_has_the_papers_number_of_parameters():
    """|V| (1 + n m + h) + h (1 + (n − 1) m), where n m counts the vectors themselves and n − 1 direct connections."""
    n, m, h = 6, 60, 50
    model = NPLMSpec(vocab_size=V, order=n, d_model=m, hidden=h).build()
    assert parameter_count(model) == V * (1 + n * m + h) + h * (1 + (n - 1) * m)


@pytest.mark.parametrize("name", ["lstm", "gru", "elman", "nplm", "cbow", "wavenet"])
def test_architecture_is_built_by_name_and_writes_what_its_scores_say(name: str):
    spec = ARCHITECTURES[name](vocab_size=V, context_length=16, d_model=12, layers=2, heads=2)
    model = spec.initialize(seed=0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.5
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    done = generate(model, prompts, max_new_tokens=30, sampling=GREEDY)
    for prompt, written in zip(prompts, done, strict=True):
        ids = list(prompt)
        for _ in range(30):  # longer than `context_length`
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert written.ids == ids[len(prompt) :]


def test_mistakes_in_specs_are_named():
    with pytest.raises(ValueError, match="cell must be one of"):
        RecurrenceSpec(cell="mgu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has to be projected"):
        RNNSpec(vocab_size=V, context_length=8, d_model=4, recurrence=RecurrenceSpec(hidden=9, projected=False))
    with pytest.raises(ValueError, match="order must be at least 2"):
        NPLMSpec(vocab_size=V, order=1)
    with pytest.raises(ValueError, match="needs direct connections"):
        NPLMSpec(vocab_size=V, hidden=0, direct=False)
