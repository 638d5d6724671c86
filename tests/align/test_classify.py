"""Classifiers on a decoder: padding changes nothing, both ways learn, and what is ignored can't be learnt."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from underhood.align.classify import (
    ClassificationLoss,
    Classifier,
    ClassifierSpec,
    LabelledBatches,
    class_probabilities,
    encode_texts,
    label_tokens,
    padded_rows,
)
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.text.bpe import train_bpe
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec

TOKENIZER = train_bpe(["good bad label: the film was a b c d " * 5], vocab_size=290)
WAYS: list[dict[str, Any]] = [
    {"how": "head", "pool": "last"},
    {"how": "head", "pool": "mean"},
    {"how": "token", "label_ids": (7, 9)},
]


def classifier(way: dict[str, Any], labels: tuple[str, ...] = ("bad", "good")) -> Classifier:
    spec = qwen3_shaped(vocab_size=40, context_length=16, d_model=32, layers=1, heads=2, d_ff=64)
    made = ClassifierSpec(labels=labels, **way).build(spec.initialize(seed=0))
    made.model.unembed.weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return made


def texts(seed: int, count: int = 160) -> tuple[list[list[int]], list[int]]:
    """Rows of many lengths; class 1 if token 20 is somewhere in the first half of the row."""
    draw = random.Random(seed)
    rows, classes = [], []
    for number in range(count):
        row = [draw.randrange(10, 20) for _ in range(draw.randrange(4, 14))]
        if number % 2:
            row[draw.randrange(len(row) // 2)] = 20
        rows.append(row)
        classes.append(number % 2)
    return rows, classes


@pytest.mark.parametrize("way", WAYS)
def test_padding_and_company_change_no_probability(way: dict[str, Any]):
    made = classifier(way)
    if made.head is not None:
        made.head.weight.data.normal_(0, 1, generator=torch.Generator().manual_seed(1))
    rows, _ = texts(0, 9)
    together = class_probabilities(made, rows, batch=4)
    alone = torch.cat([class_probabilities(made, [row]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.sum(1), torch.ones(9))
    assert float((together[0] - together[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_classifiers_learn_what_stands_early_in_the_text(way: dict[str, Any]):
    made = classifier(way)
    rows, classes = texts(0)
    batches = LabelledBatches(rows, classes, batch_size=16, seed=0)
    fit(
        made,
        batches,
        ClassificationLoss(),
        AdamWSpec(lr=0.01).build(made),
        FitSpec(steps=150),
        stage="test",
        log=RunLog(None),
    )
    unseen, truth = texts(1)
    right = (class_probabilities(made, unseen).argmax(1) == torch.tensor(truth)).float().mean()
    assert right > 0.95


def test_a_head_on_the_first_token_learns_nothing():
    """The ablation: the last token is read because it alone has seen everything."""
    made = classifier(WAYS[0])
    hidden = made.model.hidden_states

    def blind(tokens: torch.Tensor, *, positions: torch.Tensor | None = None) -> torch.Tensor:
        return hidden(tokens, positions=positions)[:, :1].expand(-1, tokens.shape[1], -1)

    made.model.hidden_states = blind  # type: ignore[method-assign]
    rows, classes = texts(0)
    rows = [[10, *row] for row in rows]
    batches = LabelledBatches(rows, classes, batch_size=16, seed=0)
    fit(
        made,
        batches,
        ClassificationLoss(),
        AdamWSpec(lr=0.01).build(made),
        FitSpec(steps=60),
        stage="test",
        log=RunLog(None),
    )
    assert (class_probabilities(made, rows).argmax(1) == torch.tensor(classes)).float().mean() < 0.6


def test_every_text_is_read_once_per_epoch():
    made = classifier(WAYS[0])
    rows, classes = texts(0, 12)
    seen: list[int] = []
    inner = made.forward

    def counting(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        seen.extend(int(row[positions_row >= 0].sum()) for row, positions_row in zip(tokens, positions, strict=True))
        return inner(tokens, positions)

    made.forward = counting  # type: ignore[method-assign]
    batches = LabelledBatches(rows, classes, batch_size=4, seed=0)
    for number in range(6):
        ClassificationLoss()(made, batches(number))
    assert sorted(seen[:12]) == sorted(seen[12:]) == sorted(map(sum, rows))
    assert seen[:12] != seen[12:]


def test_encoded_texts_are_opened_cut_and_asked():
    spec = ClassifierSpec(labels=("bad", "good"), how="token", label_ids=(1, 2))
    end = TOKENIZER.special["<|endoftext|>"]
    long = encode_texts(TOKENIZER, spec, ["the film was good " * 30], 20, opening=[end])[0]
    question = TOKENIZER.encode("\nlabel:")
    assert len(long) == 20
    assert long[0] == end
    assert long[-len(question) :] == question
    head = ClassifierSpec(labels=("bad", "good"))
    assert encode_texts(TOKENIZER, head, ["good"], 20) == [TOKENIZER.encode("good")]
    with pytest.raises(UserError, match="too short"):
        encode_texts(TOKENIZER, spec, ["good"], 2)


def test_label_tokens_tell_labels_apart():
    ids = label_tokens(TOKENIZER, ("bad", "good"))
    assert len(set(ids)) == 2
    alike = label_tokens(TOKENIZER, ("xxa", "xxb"))  # they begin with the same token: their numbers serve
    assert len(set(alike)) == 2
    with pytest.raises(ValueError, match="2 labels, but 1 tokens"):
        ClassifierSpec(labels=("a", "b"), how="token", label_ids=(1,)).build(classifier(WAYS[0]).model)


def test_padded_rows_mark_padding():
    batch = padded_rows([[5, 6], [7]])
    assert batch.tokens.tolist() == [[5, 6], [7, 0]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1], [0, -1]]


def test_a_decoder_inside_a_classifier_can_still_be_adapted():
    from underhood.nn.lora import LoRASpec

    made = classifier(WAYS[0])
    assert isinstance(made.model, Decoder)
    LoRASpec(rank=2).apply(made.model)
    learning = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    assert "head.weight" in learning
    assert all(name.startswith("head.") or ".lora_" in name for name in learning)


def test_auxiliary_loss_adds_each_texts_mean_next_token_loss():
    made, weight = classifier(WAYS[0]), 0.5
    rows, classes = [[3, 11, 12, 19], [5, 17], [8, 8, 13]], [0, 1, 1]
    batch = LabelledBatches(rows, classes, batch_size=3, seed=0)(0)
    plain, _ = ClassificationLoss()(made, batch)
    both, metrics = ClassificationLoss(lm_weight=weight)(made, batch)
    expected = 0.0
    for row in rows:
        logits_TV = made.model(torch.tensor([row[:-1]]))[0]
        expected += torch.nn.functional.cross_entropy(logits_TV, torch.tensor(row[1:])).item()
    assert metrics["lm_loss"] == pytest.approx(expected, rel=1e-5)
    assert (both - plain).item() == pytest.approx(weight * expected, rel=1e-5)


def test_auxiliary_loss_keeps_the_language_model_while_it_learns_labels():
    rows, classes = texts(0)
    losses = {}
    for weight in (0.0, 0.5):
        made = classifier(WAYS[1])
        spec = FitSpec(steps=40, log_every=40)
        batches = LabelledBatches(rows, classes, batch_size=16, seed=0)
        optimizer = AdamWSpec(lr=1e-2).build(made)
        fit(made, batches, ClassificationLoss(lm_weight=weight), optimizer, spec, stage="classify", log=RunLog(None))
        with torch.no_grad():
            losses[weight] = ClassificationLoss(lm_weight=1.0)(made, batches(0))[1]["lm_loss"]
    assert losses[0.5] < losses[0.0] - 1.0
