"""Raschka 2024, chapter 6: which token and which layers a classifier on a language model should train."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.align.classify import Classifier, ClassifierSpec
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.nn.attention import AttentionSpec
from underhood.nn.lora import LoRASpec
from underhood.path.lib.two_subjects import LENGTH, VOCABULARY, messages, spelled

LABELLED, TEST, BATCH = 60, 1000, 30
SPEC = qwen3_shaped(vocab_size=VOCABULARY, context_length=LENGTH, d_model=64, layers=2, heads=4, tied=True)
ARMS = {
    "all weights": "last", "last block": "last", "first token": "first", "head alone": "last", "LoRA": "last",
    "random start": "last",
}  # fmt: skip
"""What is trained, and which token's vector the head reads."""


def run(trial: Trial) -> None:
    spec = SPEC
    if trial.ablated("mask"):
        [block] = SPEC.blocks
        assert isinstance(block.mixer, AttentionSpec)
        spec = replace(SPEC, blocks=(replace(block, mixer=replace(block.mixer, causal=False)),))
    names = tuple(trial.by_scale(smoke=("last block", "first token"), report=tuple(ARMS)))
    rights: dict[str, list[float]] = {}
    for seed in trial.each_seed():
        unlabelled_NT, _ = messages(trial.by_scale(smoke=3000, report=6000), seed=1000 + seed)
        labelled, test = messages(LABELLED, seed=2000 + seed), messages(TEST, seed=3000 + seed)
        base = pretrain(trial, spec, unlabelled_NT, seed)
        for name in names:
            rights.setdefault(name, []).append(learn(base, spec, name, labelled, test, seed))
        latest = {name: values[-1] for name, values in rights.items()}
        trial.measure("last_first", latest["last block"] - latest["first token"])
        if trial.wants("blind"):
            trial.measure("blind", latest["first token"])
        if trial.wants("pretrained"):
            rights.setdefault("tf-idf", []).append(bag_of_words(trial, labelled, test))
            trial.measure("pretrained", latest["all weights"] - latest["random start"])
            trial.measure("block_head", latest["last block"] - latest["head alone"])
            trial.measure("lora_all", latest["LoRA"] - latest["all weights"])
            if rights["tf-idf"][-1] > 0:
                trial.measure("bag_of_words", latest["all weights"] - rights["tf-idf"][-1])
    if not trial.is_ablation:
        show(trial, rights)


def pretrain(trial: Trial, spec: DecoderSpec, words_NT: Tensor, seed: int) -> Decoder:
    """A language model of the messages; where later words are seen, of their masked words."""
    model, steps = spec.initialize(seed=seed), trial.by_scale(smoke=100, report=400)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows_BT = words_NT[torch.randint(len(words_NT), (trial.by_scale(smoke=48, report=64),), generator=generator)]
        if trial.ablated("mask"):  # every second word is hidden behind the first word's id, and guessed
            hidden_BT = torch.rand(rows_BT.shape, generator=generator) < 0.5
            loss = F.cross_entropy(model(rows_BT.masked_fill(hidden_BT, 0))[hidden_BT], rows_BT[hidden_BT])
        else:
            loss = F.cross_entropy(model(rows_BT[:, :-1]).flatten(0, 1), rows_BT[:, 1:].flatten())
        step_down(optimizer, loss, 4e-3 * (1 - step / steps))
        trial.progress(step / steps, "pretraining")
    return model


def learn(
    base: Decoder, spec: DecoderSpec, name: str, labelled: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int
) -> float:
    """Fine-tunes one way; the share of the test messages that are right."""
    model = spec.initialize(seed=seed + 500) if name == "random start" else copy.deepcopy(base)
    model.requires_grad_(name in ("all weights", "random start"))
    if name == "LoRA":
        LoRASpec(rank=4, alpha=8).apply(model, seed=seed)
    if name in ("last block", "first token"):
        model.blocks[-1].requires_grad_(True)
        model.norm.requires_grad_(True)
    classifier = ClassifierSpec(labels=("ham", "spam")).build(model)
    rates = [(classifier.head, 1e-2), (model, 4e-3 if name == "LoRA" else 2e-3)]
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate} for module, rate in rates if module
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(80):
        chosen = torch.randint(LABELLED, (BATCH,), generator=generator)
        loss = F.cross_entropy(scores(classifier, labelled[0][chosen], ARMS[name]), labelled[1][chosen])
        step_down(optimizer, loss, None)
    with torch.no_grad():
        return float((scores(classifier, test[0], ARMS[name]).argmax(dim=1) == test[1]).float().mean())


def scores(classifier: Classifier, words_BT: Tensor, token: str) -> Tensor:
    """The classes' scores from the first or the last token's vector."""
    assert isinstance(classifier.head, nn.Linear)
    hidden_BTD = classifier.model.hidden_states(words_BT)
    return classifier.head(hidden_BTD[:, 0 if token == "first" else -1])


def step_down(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float | None) -> None:
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] if rate is None else rate
    optimizer.step()


def bag_of_words(trial: Trial, labelled: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Logistic regression on tf-idf, learnt from the same labelled messages; 0 where scikit-learn is not installed."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        trial.skip_claim("bag_of_words", "needs scikit-learn")
        return 0.0
    words = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(spelled(labelled[0])), labelled[1].numpy())
    return float((model.predict(words.transform(spelled(test[0]))) == test[1].numpy()).mean())


def show(trial: Trial, rights: dict[str, list[float]]) -> None:
    means = {name: sum(values) / len(values) for name, values in rights.items() if max(values) > 0}
    trial.plot(
        title=f"Right on {TEST:,} test messages, learnt from {LABELLED}",
        x="",
        y="share right",
        kind="bars",
        names=tuple(means),
        series=[Series("mean over seeds", tuple(range(len(means))), tuple(means.values()))],
    )
