"""Payloads of the page's interventions: a head, a weight or a key taken away, and patches in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inside_payload import decoded, family, subject_of

from underhood.core.errors import UserError
from underhood.inspect.ablation import AblatedHead, MaskedEdge, MaskedKey, ablate
from underhood.inspect.patching import patch_residual
from underhood.web.inside.subjects import Subject
from underhood.web.inside.views import view

WORDS = chr(0x100 + 40) + "|" + chr(0x100 + 7)
CUTS = {
    "zero": (AblatedHead(1, 2, "zero"), {}),
    "mean": (AblatedHead(1, 2, "mean"), {}),
    "edge": (MaskedEdge(1, 2, 8, 5), {"query": 8, "key": 5}),
    "key": (MaskedKey(1, 2, 5), {"key": 5}),
}


def read(subject: Subject, name: str, **given: str | int):
    return decoded(view(subject, name, given).to_bytes())


@pytest.fixture(scope="module", params=["gpt2", "gemma2", "recurrent"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(family(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("what", CUTS)
def test_a_cut_is_the_ablation_of_python_for_chosen_and_likeliest_tokens(subject: Subject, what: str):
    ablated, edge = CUTS[what]
    facts, arrays = read(subject, "cut", layer=1, head=2, position=8, what=what, words=WORDS, **edge)
    ids = [token["id"] for token in facts["tokens"]]
    assert ids[:2] == [40, 7]
    assert facts["chosen"] == 2
    expected = ablate(subject.loaded, subject.ids, ablated, ids, position=8)
    assert np.allclose(arrays["logprobs"], expected.logprobs, atol=1e-5)
    assert float(expected.logprob_changes.abs().max()) > 1e-4
    every = ablate(subject.loaded, subject.ids, ablated, range(subject.model.vocab_size), position=8)
    for row in every.logprobs:
        assert set(row.topk(5).indices.tolist()) <= set(ids)
    before_V, after_V = every.logprobs.double()
    bits = float((before_V.exp() * (before_V - after_V)).sum() / np.log(2))
    assert facts["divergence"] == pytest.approx(bits, abs=1e-6)


def test_a_key_hidden_changes_nothing_before_it(subject: Subject):
    _, before = read(subject, "cut", layer=1, head=2, position=4, what="zero")
    ids = [token["id"] for token in read(subject, "cut", layer=1, head=2, position=4, what="zero")[0]["tokens"]]
    with torch.no_grad():
        logprobs_V = subject.model(torch.tensor([subject.ids]))[0, 4].log_softmax(dim=-1)
    assert np.allclose(before["logprobs"][0], logprobs_V[ids], atol=1e-5)
    with pytest.raises(UserError, match="no later token"):
        read(subject, "cut", layer=1, head=2, position=4, what="key", key=4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"what": "head"}, "zero or mean or edge or key"),
        ({"what": "edge", "query": 3, "key": 6}, "does not see"),
        ({"what": "zero", "head": 9}, "no head 9"),
        ({"what": "zero", "words": chr(0x100 + 3) + chr(0x100 + 4)}, "2 tokens"),
    ],
)
def test_cuts_that_can_t_be_made_say_why(given: dict[str, str | int], message: str, subject: Subject):
    with pytest.raises(UserError, match=message):
        read(subject, "cut", **({"layer": 1, "head": 2, "position": 8} | given))


def test_patches_go_both_ways_and_need_equal_lengths(subject: Subject):
    other = subject.prompt[:3] + chr(0x100 + 99) + subject.prompt[4:]
    source = subject.with_prompt(other)
    names = {"answer": chr(0x100 + 40), "other": chr(0x100 + 7)}
    for direction, ends in {"in": (source, subject), "out": (subject, source)}.items():
        sweep = patch_residual(subject.loaded, *(end.ids for end in ends), answer=40, other=7)
        facts, arrays = read(subject, "patch", against=other, direction=direction, **names)
        assert np.allclose(arrays["differences"], sweep.differences, atol=1e-4)
        assert [facts["source"], facts["target"]] == pytest.approx([sweep.source, sweep.target], abs=1e-4)
        assert facts["pieces"] == list(ends[1].trace.pieces)
        assert facts["source_pieces"] == list(ends[0].trace.pieces)
        assert np.allclose(arrays["differences"][-1, -1], sweep.source, atol=1e-4)  # the whole end is exchanged
    with pytest.raises(UserError, match="expected equally many"):
        read(subject, "patch", against=other + other[0], **names)
    with pytest.raises(UserError, match="no direction 'back'"):
        read(subject, "patch", against=other, direction="back", **names)


def test_random_families_have_cuts(tmp_path: Path):
    mixture = subject_of(family("mixtral", tmp_path))
    expected = ablate(mixture.loaded, mixture.ids, AblatedHead(0, 1, "zero"), [40], position=-1)
    _, arrays = read(mixture, "cut", layer=0, head=1, position=-1, what="zero", words=chr(0x100 + 40))
    assert np.allclose(arrays["logprobs"][:, 0], expected.logprobs[:, 0], atol=1e-5)
