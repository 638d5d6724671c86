"""Raschka 2024, chapter 4: GPT-2's parameters counted, and the tokens that the untrained model writes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.infer.generate import generate
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.presets import count_parameters, preset
from underhood.nn.attention import AttentionSpec
from underhood.path.lib.default_start import default_start, raschka_shaped

HELLO_I_AM = [15496, 11, 314, 716]
WRITTEN = [27018, 24086, 47843, 30961, 42348, 7267]
FAMILY = {"gpt2-medium": 406_212_608, "gpt2-large": 838_220_800, "gpt2-xl": 1_637_792_000}
VARIANCES = [0.9995, 0.9997]


def run(trial: Trial) -> None:
    spec = raschka_shaped()
    if trial.wants("untied"):
        count(trial, spec)
        trial.measure("norm", variance_difference())
    if trial.ablated("causal"):
        [block] = spec.blocks
        assert isinstance(block.mixer, AttentionSpec)
        spec = replace(spec, blocks=(replace(block, mixer=replace(block.mixer, causal=False)),))
    model = default_start(spec)
    written = write(model, HELLO_I_AM, len(WRITTEN))
    trial.measure("words", differing(written))
    if trial.wants("cached"):
        [kept] = generate(model, [HELLO_I_AM], max_new_tokens=len(WRITTEN))
        trial.measure("cached", differing(kept.ids))


@torch.no_grad()
def write(model: Decoder, ids: list[int], count: int) -> list[int]:
    """The chapter's loop: reads all tokens so far, appends the one with the highest score; the new tokens."""
    ids = list(ids)
    for _ in range(count):
        window = torch.tensor([ids[-model.context_length :]])
        ids.append(int(model(window)[0, -1].argmax()))
    return ids[-count:]


def differing(ids: list[int]) -> int:
    return sum(ours != theirs for ours, theirs in zip(ids, WRITTEN, strict=True))


def count(trial: Trial, spec: DecoderSpec) -> None:
    """Parameters of the model and its relatives, without allocating them."""
    sizes = {name: count_parameters(raschka_shaped(name))[0] for name in FAMILY}
    untied = count_parameters(spec)[0]
    trial.measure("untied", untied)
    trial.measure("tied", count_parameters(raschka_shaped(tied=True))[0])
    trial.measure("published", count_parameters(preset("gpt2"))[0])
    trial.measure("megabytes", 4 * untied / 2**20)
    trial.measure("family", sum(abs(sizes[name] - FAMILY[name]) for name in FAMILY))
    with torch.device("meta"):
        block = spec.build().blocks[0]
    attention, mlp = (parameter_count(block.get_submodule(name)) for name in ("mixer", "feedforward"))
    trial.measure("halves", attention + mlp if 2 * attention + 2304 == mlp else -1)
    closed = closed_form(spec)
    trial.oracle("the closed form counts the same", sum(closed.values()) == untied, f"{sum(closed.values()):,}")
    show(trial, {"gpt2": untied} | sizes, closed)


def closed_form(spec: DecoderSpec) -> dict[str, int]:
    """Parameters by what they are for: products of the sizes."""
    d, layers = spec.d_model, spec.layers
    return {
        "token embedding": spec.vocab_size * d,
        "positions": spec.context_length * d,
        "attention": layers * (4 * d * d + d),
        "MLP": layers * (8 * d * d + 5 * d),
        "norms": (2 * layers + 1) * 2 * d,
        "unembedding": spec.vocab_size * d,
    }


def variance_difference() -> float:
    """How far LayerNorm's variances of the chapter's two examples are from the printed ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        examples = torch.randn(2, 5)
        layer = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
    normed = raschka_shaped().norm.build(6)(layer(examples))
    return float((normed.var(dim=-1, unbiased=False) - torch.tensor(VARIANCES)).abs().max().detach())


def show(trial: Trial, sizes: dict[str, int], closed: dict[str, int]) -> None:
    trial.table(
        title="Parameters of the four sizes, unembedding of their own",
        head=("model", "parameters", "tied", "MB in float32"),
        rows=[
            (name, f"{n:,}", f"{count_parameters(raschka_shaped(name, tied=True))[0]:,}", f"{4 * n / 2**20:,.2f}")
            for name, n in sizes.items()
        ],
    )
    trial.plot(
        title="Where the 163 million parameters are",
        x="",
        y="millions",
        kind="bars",
        names=tuple(closed),
        series=[Series("GPT-2, smallest", tuple(range(len(closed))), tuple(n / 1e6 for n in closed.values()))],
    )
