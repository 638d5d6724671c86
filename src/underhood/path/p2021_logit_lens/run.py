"""nostalgebraist 2020, Alammar 2021: what every layer would say if it were the last."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus
from underhood.data.split import split_documents
from underhood.inspect.lens import read_out
from underhood.models.copying import begin_copying
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.hops import LENGTH, VOCABULARY, hop_questions, lens_of_answers, settled_layer
from underhood.path.lib.residual_streams import residual_streams
from underhood.path.lib.short_training import train_by_step
from underhood.text.bpe import train_bpe
from underhood.train.cross_entropy import cross_entropy
from underhood.train.small_lm import train_small

WINDOW, LAYERS = 64, 4


def run(trial: Trial) -> None:
    ranks, losses, shares = [], [], {"one hop": [], "two hops": [], "the symbol between": []}
    texts = on_text(trial) if trial.wants("last", "rank", "loss") else None
    for seed in trial.each_seed():
        if texts is not None:
            rank_L, loss_L = texts(seed)
            ranks.append(rank_L)
            losses.append(loss_L)
        if trial.wants("answers", "hops", "between"):
            on_hops(trial, seed, shares)
    if not trial.is_ablation:
        show(trial, ranks, losses, shares)


def on_text(trial: Trial) -> Callable[[int], tuple[list[float], list[float]]]:
    """Prepares the text; the returned function trains a model from a seed and reads all of its layers."""
    train, held_out = (
        [document.text for document in corpus.documents if document.kind == "topic"]
        for corpus in split_documents(pydocs_corpus(), held_out=0.1, seed=0)
    )
    tokenizer = train_bpe(train, vocab_size=1024)
    ids = torch.tensor([id for text in held_out for id in tokenizer.encode(text)])
    windows_NT = ids[: len(ids) // (WINDOW + 1) * (WINDOW + 1)].view(-1, WINDOW + 1)[:128]
    spec = qwen3_shaped(vocab_size=1024, context_length=WINDOW, d_model=96, layers=LAYERS, heads=3)

    def read(seed: int) -> tuple[list[float], list[float]]:
        model = train_small(
            train,
            tokenizer,
            spec,
            steps=trial.by_scale(smoke=60, report=250),
            seed=seed,
            progress=lambda share: trial.progress(share, "training on text"),
        )
        rank_L, loss_L = by_layer(trial, model, windows_NT)
        trial.measure("rank", max(after / before for before, after in pairwise(rank_L)))
        trial.measure("loss", max(np.diff(loss_L)))
        return rank_L, loss_L

    return read


@torch.no_grad()
def by_layer(trial: Trial, model: Decoder, windows_NT: Tensor) -> tuple[list[float], list[float]]:
    """Mean rank and cross-entropy (nats) of the next token, read from every layer's residual stream."""
    streams = residual_streams(model, windows_NT[:, :-1])
    ranks, losses = [], []
    for stream_NTD in streams:
        logits_MV = lens(trial, model, stream_NTD).flatten(0, 1)
        next_M = windows_NT[:, 1:].flatten()
        own_M1 = logits_MV.gather(1, next_M[:, None])
        ranks.append(float((logits_MV > own_M1).sum(dim=1).add(1).float().mean()))
        losses.append(float(cross_entropy(logits_MV, next_M)))
    last = lens(trial, model, streams[-1])
    trial.measure("last", float((last - model(windows_NT[:, :-1])).abs().max()))
    return ranks, losses


def lens(trial: Trial, model: Decoder, stream: Tensor) -> Tensor:
    if trial.ablated("norm"):
        return model.unembed(stream).float()
    return read_out(model, stream)


def on_hops(trial: Trial, seed: int, shares: dict[str, list[list[float]]]) -> None:
    """Trains on questions of one and two hops, and looks in which layer their answers appear."""
    model = train_on_hops(trial, seed)
    test = hop_questions(400, torch.Generator().manual_seed(10**6 + seed))
    named_LM, answers_M, between_M = lens_of_answers(model, test)
    two_M = between_M >= 0
    right_M = named_LM[-1] == answers_M
    trial.measure("answers", float(min(right_M[two_M].float().mean(), right_M[~two_M].float().mean())))
    settled_M = settled_layer(named_LM, answers_M).float()
    trial.measure("hops", float(settled_M[two_M & right_M].mean() - settled_M[~two_M & right_M].mean()))
    if trial.wants("between"):
        shown_M = (named_LM[:-1, two_M] == between_M[two_M]).any(dim=0)
        trial.measure("between", float(shown_M.float().mean()))
    right_LM = (named_LM == answers_M).float()
    shares["one hop"].append(right_LM[:, ~two_M].mean(dim=1).tolist())
    shares["two hops"].append(right_LM[:, two_M].mean(dim=1).tolist())
    shares["the symbol between"].append((named_LM[:, two_M] == between_M[two_M]).float().mean(dim=1).tolist())


def train_on_hops(trial: Trial, seed: int) -> Decoder:
    spec = qwen3_shaped(vocab_size=VOCABULARY, context_length=LENGTH, d_model=64, layers=LAYERS, heads=2)
    model = begin_copying(spec.initialize(seed=seed), seed=seed, embed_std=0.02)

    def loss(step: int) -> Tensor:
        batch = hop_questions(64, torch.Generator().manual_seed(seed * 10**6 + step))
        return cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())

    steps = trial.by_scale(smoke=200, report=600)
    return train_by_step(model, loss, steps, fall=3, tell=lambda share: trial.progress(share, "training on hops"))


def show(trial: Trial, ranks: list, losses: list, shares: dict[str, list[list[float]]]) -> None:
    layers = tuple(range(LAYERS + 1))
    for title, y, table in (
        ("The next token climbs, layer by layer", "its mean rank of 1,024", np.array(ranks)),
        ("Every layer would lose less if it were the last", "nats", np.array(losses)),
    ):
        spread = (table.mean(axis=0), table.min(axis=0), table.max(axis=0))
        series = [Series("held-out text", layers, *spread)]
        trial.plot(title=title, x="layers that have been read", y=y, log_y="rank" in y, series=series)
    lines = [Series(name, layers, np.array(values).mean(axis=0)) for name, values in shares.items() if values]
    if lines:
        trial.plot(
            title="Two hops take longer than one",
            x="layers that have been read",
            y="share of questions in which the lens shows it",
            series=lines,
        )
