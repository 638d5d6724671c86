"""Alammar 2020, Brown et al. 2020: the parts of GPT-3 counted, a token followed through a small model of its kind."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus
from underhood.infer.cache import ContiguousCache
from underhood.models.decoder import Decoder
from underhood.nn.attention import AttentionSpec
from underhood.path.lib.gpt3_family import MEANT, PRINTED, TOKENS, gpt3_shaped, parameters, shares
from underhood.path.lib.residual_streams import residual_streams
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.small_lm import train_small

WINDOW, LAYERS, WIDTH = 64, 6, 96
WORDS = (" the", " of", " is", " a", " to")


def run(trial: Trial) -> None:
    counts = {name: parameters(*shape) for name, (*shape, _) in MEANT.items()}
    trial.measure("parameters", counts["175B"] / 1e9)
    trial.measure("compute", 6 * counts["175B"] * TOKENS / 1e23)
    for key, table in (("family", MEANT), ("printed", PRINTED)):
        trial.measure(key, max(abs(parameters(*shape) / 1e9 / named - 1) for *shape, named in table.values()))
    if trial.wants("tracks", "one_by_one", "small_steps", "same_word", "same_word_centred"):
        walk(trial)
    if not trial.is_ablation:
        trial.table(
            title="Where the parameters are",
            head=("model", "billions", "attention", "feed-forward", "embeddings", "operations to train"),
            rows=[(name, round(counts[name] / 1e9, 3), *shares(*shape)) for name, (*shape, _) in MEANT.items()],
            note="Operations: 6 per parameter and token, 300 billion tokens.",
        )


def walk(trial: Trial) -> None:
    """Follows tokens through a small model of the same kind, trained on documentation."""
    texts = [document.text for document in pydocs_corpus().documents if document.kind == "topic"]
    tokenizer = train_bpe(texts, vocab_size=1024)
    ids = torch.tensor([id for text in texts[:40] for id in tokenizer.encode(text)])
    windows_NT = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)[:96]
    spec = gpt3_shaped(LAYERS, WIDTH, 4, WIDTH // 4, vocab=1024, context=WINDOW)
    if trial.ablated("causal"):
        [block] = spec.blocks
        assert isinstance(block.mixer, AttentionSpec)
        spec = replace(spec, blocks=(replace(block, mixer=replace(block.mixer, causal=False)),))
    for seed in trial.each_seed():
        model = spec.initialize(seed=seed)
        if trial.wants("small_steps", "same_word", "same_word_centred") and not trial.is_ablation:
            steps = trial.by_scale(smoke=60, report=300)
            model = train_small(texts, tokenizer, spec, steps=steps, seed=seed, progress=trial.progress).eval()
        else:
            shake(model, seed)
        trial.measure("tracks", changes(model, windows_NT[:4], seed))
        if trial.is_ablation:
            continue
        trial.measure("one_by_one", one_by_one(model, windows_NT[:4]))
        streams_LNTD = residual_streams(model, windows_NT)
        steps_L = [float(((b - a).norm(dim=-1) / a.norm(dim=-1)).mean()) for a, b in pairwise(streams_LNTD)]
        trial.measure("small_steps", max(steps_L[1:]))
        trial.measure("same_word", fall(alike(streams_LNTD, windows_NT, tokenizer)))
        common_L11D = streams_LNTD.mean(dim=(1, 2), keepdim=True)
        cosines_L = alike(streams_LNTD - common_L11D, windows_NT, tokenizer)
        trial.measure("same_word_centred", fall(cosines_L))
        if seed == 0:
            show(trial, steps_L, cosines_L)


def shake(model: Decoder, seed: int) -> None:
    """Random weights everywhere: fresh ones leave out what blocks add."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def changes(model: Decoder, tokens_NT: Tensor, seed: int) -> float:
    """The largest change in the vectors of all tokens but the last, in any block, when the last is another."""
    other_NT = tokens_NT.clone()
    other_NT[:, -1] = (other_NT[:, -1] + 1 + seed) % model.vocab_size
    before, after = residual_streams(model, tokens_NT), residual_streams(model, other_NT)
    return float((after - before)[:, :, :-1].abs().max())


@torch.no_grad()
def one_by_one(model: Decoder, tokens_NT: Tensor) -> float:
    """The largest difference between the scores of reading token by token and of reading all at once."""
    cache = ContiguousCache.for_model(model, *tokens_NT.shape)
    single = torch.cat([model(tokens_N1, cache=cache) for tokens_N1 in tokens_NT.split(1, dim=1)], dim=1)
    return float((single - model(tokens_NT)).abs().max())


def alike(streams_LNTD: Tensor, windows_NT: Tensor, tokenizer: BytePairTokenizer) -> list[float]:
    """Mean cosine between vectors of the same word in different places, after each layer, over frequent words."""
    known = [tokenizer.encode(word) for word in WORDS]
    sums: list[list[float]] = []
    for [id] in (ids for ids in known if len(ids) == 1):
        vectors_LMD = streams_LNTD[:, windows_NT == id].float()
        if (count := vectors_LMD.shape[1]) > 10:
            unit_LMD = torch.nn.functional.normalize(vectors_LMD, dim=-1)
            pairs_L = (unit_LMD.sum(dim=1).square().sum(dim=-1) - count) / (count * (count - 1))
            sums.append(pairs_L.tolist())
    return np.mean(sums, axis=0).tolist()


def fall(cosines_L: list[float]) -> float:
    return cosines_L[0] - min(cosines_L)


def show(trial: Trial, steps_L: list[float], cosines_L: list[float]) -> None:
    trial.plot(
        title="What a block adds, and how alike the same word stays",
        x="block",
        y="share of the vector's length; cosine",
        series=(
            Series("length of what the block adds, as a share", tuple(range(1, LAYERS + 1)), tuple(steps_L)),
            Series(
                "cosine between places of the same word, without what all words share",
                tuple(range(LAYERS + 1)),
                tuple(cosines_L),
            ),
        ),
        note=f"A model of {LAYERS} blocks of width {WIDTH}, trained on Python's documentation; first seed.",
    )
