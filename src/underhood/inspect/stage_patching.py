"""Cross-model patching: values of one model's run put into the run of another of the same shape (after Prakash et al.
2024, "cross-model activation patching", and Vig et al. 2020).

The second model runs with some of its values, or weights, taken from the first. Where that brings back what the first
model says, the value carries the difference between the two: a stage of training, or a checkpoint, is compared with
another like a prompt with another. The runs may also differ in the prompt, as long as it has equally many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.interventions import Change, changing, changing_all
from underhood.inspect.patching import ROWS, PatchSweep, check_equal_lengths, run_from
from underhood.inspect.sites import sites_of
from underhood.inspect.trace import Trace, checked_position
from underhood.models.decoder import Decoder
from underhood.nn.block import Block
from underhood.ui import notebook

SITES = ("residual", "mixer", "feedforward")
"""What the traces must have of every layer."""


@dataclass(frozen=True)
class ModelRun:
    """A model, and the trace of its run with a prompt.

    Attributes:
        loaded: the model; its weights must still be those that the trace was made with.
        trace: with `SITES` of every layer.
    """

    loaded: LoadedModel
    trace: Trace

    @property
    def model(self) -> Decoder:
        return self.loaded.decoder

    def until(self, position: int) -> "ModelRun":
        """The run up to a position: what comes later changes nothing before it.

        Raises:
            UserError: the prompt has no such position.
        """
        count = len(self.trace.ids)
        end = checked_position(position, count) + 1
        if end == count:
            return self
        own = self.trace
        values = {site: value[:end] for site, value in own.values.items() if site.partition(".")[0] in SITES}
        return ModelRun(self.loaded, Trace(own.name, own.ids[:end], own.pieces[:end], values, own.attention))


@dataclass(frozen=True, repr=False)
class PartPatches:
    """What each patched part does to the difference of two tokens' log-probabilities.

    Attributes:
        names: of the parts.
        differences: with each part taken from the first model's run, or its weights from the first model: (N).
        source: the difference in the first model's run.
        target: the difference in the second one's.
    """

    names: tuple[str, ...]
    differences: Float[Tensor, "N"]
    source: float
    target: float

    @property
    def restored(self) -> Float[Tensor, "N"]:
        """Share of the way from the second model's difference back to the first one's."""
        return (self.differences - self.target) / (self.source - self.target)

    def largest(self, count: int = 10) -> list[tuple[str, float]]:
        """The parts that bring back most, with their shares."""
        order = self.restored.argsort(descending=True)[:count].tolist()
        return [(self.names[number], float(self.restored[number])) for number in order]

    def _repr_html_(self) -> str:
        facts = {"Difference of the log-probabilities": f"{self.target:.2f} as it is, {self.source:.2f} in the source"}
        return notebook.framed(
            notebook.facts_table("Parts patched: share of the way to the source", facts),
            notebook.signed_heat_table(self.names, ["share"], self.restored[:, None].tolist()),
        )

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {share:.2f}" for name, share in self.largest(4))
        return f"<{len(self.names)} patched parts: {parts}, …>"


def same_shape(first: ModelRun, second: ModelRun) -> None:
    """Checks that the values of one run can be put into the other.

    Raises:
        UserError: the models differ in layers, width or vocabulary, or the prompts in length.
    """
    shapes = [
        (len(run.model.blocks), run.model.spec.d_model, run.model.vocab_size, list(sites_of(run.model)))
        for run in (first, second)
    ]
    if shapes[0] != shapes[1]:
        words = [f"{layers} layers of width {width}, {vocabulary:,} tokens" for layers, width, vocabulary, _ in shapes]
        raise UserError(
            "the two models differ in shape, so their layers do not correspond",
            expected=f"another of {words[0]}, such as a stage of the same run",
            got=words[1],
        )
    check_equal_lengths(len(first.trace.ids), len(second.trace.ids))


def aligned_runs(first: ModelRun, second: ModelRun, position: int) -> tuple[ModelRun, ModelRun]:
    """Both runs up to a position.

    Raises:
        UserError: as for `same_shape`, or the prompt has no such position.
    """
    same_shape(first, second)
    return first.until(position), second.until(position)


@torch.no_grad()
def patch_stage_residual(
    first: ModelRun, second: ModelRun, *, answer: int, other: int, position: int = -1
) -> PatchSweep:
    """Patches the second model's residual stream with the first one's, every layer and token by itself.

    Args:
        answer, other: ids; the difference of their log-probabilities after `position` is what is measured.

    Raises:
        UserError: as for `same_shape`, or the prompt has no such position.
    """
    first, second = aligned_runs(first, second, position)
    model, count = second.model, len(second.trace.ids)
    streams = [run.trace.layers("residual") for run in (first, second)]
    differences = torch.empty(len(streams[0]), count)
    for layer, (from_TD, into_TD) in enumerate(zip(*streams, strict=True)):
        for start in range(0, count, ROWS):
            tokens = range(start, min(start + ROWS, count))
            patched_BTD = into_TD.expand(len(tokens), -1, -1).clone()
            for row, token in enumerate(tokens):
                patched_BTD[row, token] = from_TD[token]
            differences[layer, list(tokens)] = _difference(run_on(model, layer, patched_BTD), answer, other)
    source, target = (_reached(run, answer, other) for run in (first, second))
    return PatchSweep(differences, source, target, second.trace.pieces)


@torch.no_grad()
def join_models(first: ModelRun, second: ModelRun, *, answer: int, other: int, position: int = -1) -> PartPatches:
    """Runs the first l layers of the first model and the other layers of the second, for every l.

    Two neighbouring joins differ by one layer, and their difference is its share. The last join has only the norm and
    the unembedding of the second model.

    Raises:
        UserError: as for `patch_stage_residual`.
    """
    first, second = aligned_runs(first, second, position)
    streams_LTD = first.trace.layers("residual")
    logits = [run_on(second.model, layer, stream_TD[None]) for layer, stream_TD in enumerate(streams_LTD)]
    names = tuple(f"residual.{layer}" for layer in range(len(streams_LTD)))
    return _patches(names, logits, first, second, answer, other)


@torch.no_grad()
def patch_parts(first: ModelRun, second: ModelRun, *, answer: int, other: int, position: int = -1) -> PartPatches:
    """Patches what the embedding, a mixer or a feed-forward adds, at all tokens, with what the first model's added.

    Raises:
        UserError: as for `patch_stage_residual`.
    """
    first, second = aligned_runs(first, second, position)
    model, recorded = second.model, second.trace
    names = ["embedding"]
    logits = [run_on(model, 0, first.trace["residual.0"][None])]
    for layer in range(len(model.blocks)):
        if f"mixer.{layer}" in recorded.values:
            names.append(f"mixer.{layer}")
            logits.append(_with_mixer(model, layer, recorded, first.trace[f"mixer.{layer}"]))
        if f"feedforward.{layer}" in recorded.values:
            names.append(f"feedforward.{layer}")
            change_TD = first.trace[f"feedforward.{layer}"] - recorded[f"feedforward.{layer}"]
            logits.append(run_on(model, layer + 1, (recorded[f"residual.{layer + 1}"] + change_TD)[None]))
    return _patches(tuple(names), logits, first, second, answer, other)


@torch.no_grad()
def patch_tokens(first: ModelRun, second: ModelRun, *, answer: int, other: int, position: int = -1) -> PartPatches:
    """Patches all that one token's column of the second model computes, from the embedding to the last layer.

    The token at `position` itself, whose column is the answer, is left out.

    Raises:
        UserError: as for `patch_stage_residual`.
    """
    first, second = aligned_runs(first, second, position)
    model, count, sites = second.model, len(second.trace.ids), sites_of(second.model)
    logits = []
    for start in range(0, count - 1, ROWS):
        tokens = range(start, min(start + ROWS, count - 1))
        stream_BTD = second.trace["residual.0"].expand(len(tokens), -1, -1).clone()

        def replaced(layer: int, tokens: range = tokens) -> Change:
            def change(stream_BTD: Tensor) -> Tensor:
                stream_BTD = stream_BTD.clone()
                for row, token in enumerate(tokens):
                    stream_BTD[row, token] = first.trace[f"residual.{layer}"][token].to(stream_BTD.device)
                return stream_BTD

            return change

        with changing_all([(sites[f"residual.{layer}"], replaced(layer)) for layer in range(len(model.blocks))]):
            logits.append(run_on(model, 0, stream_BTD))
    names = tuple(str(token) for token in range(count - 1))
    return _patches(names, logits, first, second, answer, other)


@torch.no_grad()
def swap_weights(first: ModelRun, second: ModelRun, *, answer: int, other: int, position: int = -1) -> PartPatches:
    """Gives the second model one part's weights of the first, and runs it on its own prompt.

    A patched activation also holds what earlier layers changed; exchanged weights tell which part was trained to do
    something else. A part has the norms before and after it. Where embedding and unembedding are tied, they are one.

    Raises:
        UserError: as for `patch_stage_residual`.
    """
    first, second = aligned_runs(first, second, position)
    model, own = second.model, dict(first.model.named_parameters())
    groups: dict[str, dict[str, Tensor]] = {}
    for name, parameter in own.items():
        groups.setdefault(_part_of(name, model), {})[name] = parameter.to(device_of(model))
    tokens_1T = torch.tensor([second.trace.ids], device=device_of(model))
    logits = [functional_call(model, weights, (tokens_1T,))[:, -1].float().cpu() for weights in groups.values()]
    return _patches(tuple(groups), logits, first, second, answer, other)


def run_on(model: Decoder, layer: int, stream_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B V"]:
    """Scores after the last token, from a residual stream on the CPU; ids without a token get −∞."""
    logits_BV = run_from(model, layer, stream_BTD.to(device_of(model))).cpu()
    if model.token_count is not None:
        logits_BV[:, model.token_count :] = -torch.inf
    return logits_BV


def _with_mixer(model: Decoder, layer: int, recorded: Trace, added_TD: Tensor) -> Tensor:
    """Scores where a layer's mixer adds something else."""

    def replaced(output_BTD: Tensor) -> Tensor:
        return added_TD[None, -output_BTD.shape[1] :].to(output_BTD)  # the last layer works out the last token alone

    with changing(sites_of(model)[f"mixer.{layer}"], replaced):
        return run_on(model, layer, recorded[f"residual.{layer}"][None])


def _patches(
    names: tuple[str, ...], logits: Sequence[Tensor], first: ModelRun, second: ModelRun, answer: int, other: int
) -> PartPatches:
    logits_NV = torch.cat(list(logits)) if logits else torch.empty(0, second.model.vocab_size)
    source, target = (_reached(run, answer, other) for run in (first, second))
    return PartPatches(names, _difference(logits_NV, answer, other), source, target)


def _reached(run: ModelRun, answer: int, other: int) -> float:
    """The difference in a run as it was."""
    last = len(run.model.blocks)
    return float(_difference(run_on(run.model, last, run.trace[f"residual.{last}"][None]), answer, other))


def _difference(logits_BV: Tensor, answer: int, other: int) -> Tensor:
    """Log-probability of `answer` minus that of `other`; what normalises them cancels out."""
    return logits_BV[:, answer] - logits_BV[:, other]


def _part_of(name: str, model: Decoder) -> str:
    """The part whose weights have this name: ``blocks.3.mixer_norm.weight`` belongs to ``mixer.3``."""
    if name.startswith("blocks."):
        _, layer, module = name.split(".")[:3]
        block = model.blocks[int(layer)]
        assert isinstance(block, Block)
        kinds = sorted((sublayer.name for sublayer in block.sublayers), key=len, reverse=True)
        return f"{next(kind for kind in kinds if module.startswith(kind))}.{layer}"
    if name.startswith(("embed.", "position_embed.")):
        return "embedding"
    return "unembedding"
