"""Views of ``underhood inspect`` over training: every checkpoint of a run, and two models beside each other."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console

from underhood.cli.inspect_options import (
    View,
    ViewOptions,
    chosen_layer,
    patch_table,
    patch_values,
    position_in,
    print_heading,
    scored_tokens,
    token_id,
)
from underhood.cli.progress import steps_line
from underhood.core.errors import UserError, nearest
from underhood.infer.load import LoadedModel, load
from underhood.infer.stages import stages_of
from underhood.inspect.comparison import NATS_PER_BIT, ChangeRanking, ChangeShare, compare, find_changes
from underhood.inspect.contributions import SITES as CONTRIBUTION_SITES
from underhood.inspect.contributions import Contributions, contributions
from underhood.inspect.lens import logit_lens
from underhood.inspect.stage_patching import SITES, ModelRun, patch_stage_residual
from underhood.inspect.through_training import ThroughTraining, TraceView, through_training
from underhood.inspect.trace import Trace, pieces_of, trace
from underhood.inspect.training_views import induction_view, lens_view, loss_view, pattern_view, rank_view
from underhood.ui.sparkline import sparkline
from underhood.ui.terminal import console, table

LEAST_SHOWN = 10
"""Rows of a list of parts or tokens that are shown if --top asks for fewer."""


def through_lens(loaded: LoadedModel, args: ViewOptions) -> View:
    """The lens sharpening: rank of a token in each layer's prediction, checkpoint by checkpoint."""
    recorded = trace(loaded, args.prompt)
    position = position_in(recorded, args.position)
    token, _ = scored_tokens(loaded, args, recorded, position)
    lens, ranks = lens_view([position], k=args.top), rank_view(token, position=position)
    both = TraceView(lens.sites, lambda model, trace: (lens(model, trace), ranks(model, trace).tolist()))
    history = _history(loaded, args, both)
    piece = pieces_of(loaded, [token])[0]
    worst = math.log(loaded.decoder.vocab_size)

    def show(out: Console) -> None:
        _training_heading(out, recorded, args, history)
        out.print(f"The likeliest next tokens; the rank of {piece} at the end, and as bars before")
        out.print("each layer and at the end, where a full bar is rank 1:")
        out.print()
        rows = []
        for checkpoint, (at_checkpoint, rank_L) in history:
            words = "  ".join(f"{word[:12]} {share:.2f}" for word, share in at_checkpoint.row(-1)[:2])
            bars = sparkline([-math.log(rank) for rank in rank_L], -worst, 0)
            rows.append([checkpoint.label, f"{rank_L[-1]:,}", bars, words])
        out.print(table(["checkpoint", "rank", "layers", "likeliest"], rows))

    values = [{"ranks": rank_L, "tokens": at_checkpoint.row(-1)} for at_checkpoint, rank_L in history.values]
    return _facts(history, values) | {"token": piece}, show


def through_attention(loaded: LoadedModel, args: ViewOptions) -> View:
    """The heads of a layer: how much each takes, at every checkpoint, from the token that it ends up with."""
    layer = chosen_layer(loaded, args)
    recorded = trace(loaded, args.prompt, [f"query.{layer}", f"key.{layer}"])
    position = position_in(recorded, args.position)
    heads = len(recorded[f"query.{layer}"])
    history = _history(loaded, args, pattern_view([(layer, head) for head in range(heads)]))
    weights_CHT = torch.stack([pattern_HTT[:, position] for pattern_HTT in history.values])
    favourite_H = weights_CHT[-1].argmax(dim=-1).tolist()

    def show(out: Console) -> None:
        _training_heading(out, recorded, args, history)
        out.print(f"How much each head of layer {layer} takes from the token that it takes most from in the end:")
        out.print()
        rows = []
        for head, token in enumerate(favourite_H):
            weights = weights_CHT[:, head, token].tolist()
            ends = [f"{weights[0]:.2f}", f"{weights[-1]:.2f}"]
            words = [str(head), str(token), recorded.pieces[token]]
            rows.append([*words, ends[0], sparkline(weights, 0, 1), ends[1]])
        out.print(table(["head", "", "token", "first", "checkpoints", "last"], rows))

    return _facts(history, [{"weights": weights_HT.tolist()} for weights_HT in weights_CHT]), show


def through_parts(loaded: LoadedModel, args: ViewOptions) -> View:
    """What each part adds to the score of a token, checkpoint by checkpoint."""
    recorded = trace(loaded, args.prompt, CONTRIBUTION_SITES)
    position = position_in(recorded, args.position)
    token, against = scored_tokens(loaded, args, recorded, position)

    def parts(model: LoadedModel, recorded: Trace) -> Contributions:
        return contributions(model, recorded, token, against=against, position=position)

    history = _history(loaded, args, TraceView(CONTRIBUTION_SITES, parts))
    values_CN = torch.stack([at_checkpoint.values for at_checkpoint in history.values])
    changed = (values_CN[-1] - values_CN[0]).abs().argsort(descending=True)[: max(args.top, LEAST_SHOWN)].tolist()
    names = history.values[-1].names

    def show(out: Console) -> None:
        _training_heading(out, recorded, args, history)
        piece = pieces_of(loaded, [token])[0]
        out.print(f"What each part adds to the score of {piece}, those that changed most first:")
        out.print()
        curves = [((names[number],), values_CN[:, number].tolist()) for number in changed]
        out.print(_curves(("part",), curves, sign="+"))

    scores = [
        {"score": at_checkpoint.score, "parts": dict(zip(names, at_checkpoint.values.tolist(), strict=True))}
        for at_checkpoint in history.values
    ]
    return _facts(history, scores), show


def through_loss(loaded: LoadedModel, args: ViewOptions) -> View:
    """The surprise at each token of the prompt, checkpoint by checkpoint."""
    recorded = trace(loaded, args.prompt)
    if len(recorded.ids) < 2:
        raise UserError("the prompt has one token, and the first one is never predicted", fix="Give a longer prompt")
    history = _history(loaded, args, loss_view())
    bits_CT = torch.stack(history.values) / NATS_PER_BIT
    changed = (bits_CT[-1] - bits_CT[0]).abs().argsort(descending=True)[: max(args.top, LEAST_SHOWN)].tolist()

    def show(out: Console) -> None:
        _training_heading(out, recorded, args, history)
        means = bits_CT.mean(dim=1).tolist()
        out.print(f"Surprise at each token in bits; {means[0]:.2f} on average at first, {means[-1]:.2f} at last:")
        out.print()
        curves = [((str(token + 1), recorded.pieces[token + 1]), bits_CT[:, token].tolist()) for token in changed]
        out.print(_curves(("", "token"), curves))

    return _facts(history, [{"bits": bits_T.tolist()} for bits_T in bits_CT]), show


def through_induction(loaded: LoadedModel, args: ViewOptions) -> View:
    """Heads becoming induction heads: their scores on repeated random tokens, checkpoint by checkpoint."""
    history = _history(loaded, args, induction_view())
    last = history.values[-1]
    strongest = last.strongest(count=max(args.top, LEAST_SHOWN))

    def show(out: Console) -> None:
        out.print(f"{len(history)} checkpoints, {history.labels[0]} to {history.labels[-1]}", style="bold")
        out.print("How much each head takes from the token after the earlier occurrence of its own,")
        out.print("in random tokens that are read twice; the strongest heads at the end:")
        out.print()
        curves = [
            (
                (str(layer), str(head)),
                [float(each.induction[last.layers.index(layer), head]) for each in history.values],
            )
            for layer, head, _ in strongest
        ]
        out.print(_curves(("layer", "head"), curves))
        out.print()
        gains = [each.first_loss - each.second_loss for each in history.values]
        out.print(f"Repetition saves {gains[0]:.2f} nats per token at first, and {gains[-1]:.2f} at last.")

    values = [
        {"induction": each.induction.tolist(), "first_loss": each.first_loss, "second_loss": each.second_loss}
        for each in history.values
    ]
    return _facts(history, values) | {"layers": last.layers}, show


def compared(loaded: LoadedModel, args: ViewOptions) -> View:
    """Two runs beside each other: how far they differ by token and layer, and what accounts for it."""
    first, second = _two_runs(loaded, args)
    beside, changes = compare(first, second), _changes(first, second, loaded, args)
    lenses = [logit_lens(run.loaded, run.trace, k=1) for run in (first, second)]
    farthest = float(beside.relative.max())

    def show(out: Console) -> None:
        if first.loaded is second.loaded:
            out.print(f"{beside.names[0]}: the prompt of --against (first) beside this one", style="bold")
        else:
            out.print(f"{beside.names[0]} (first)\nbeside {beside.names[1]}", style="bold")
        out.print()
        out.print("After each token: divergence of the predictions, the likeliest ones, and as bars")
        out.print("how far the residual streams are apart before each layer and at the end, where a")
        out.print(f"full bar is {100 * farthest:.0f} % of the first one's length:")
        out.print()
        rows = []
        for token, piece in enumerate(beside.pieces):
            words = [f"{word[:12]} {share:.2f}" for word, share in (lens.row(-1, token)[0] for lens in lenses)]
            bars = sparkline(beside.relative[:, token].tolist(), 0, farthest)
            rows.append([str(token), piece[:12], f"{float(beside.final_kl[token]):.2f}", *words, bars])
        out.print(table(["", "token", "bits", "first", "second", "layers"], rows))
        out.print()
        out.print(
            f"What changed after token {changes.position}: {changes.answer_piece} gained on {changes.other_piece}, "
            f"{changes.first:+.2f} → {changes.second:+.2f} nats.",
            style="bold",
        )
        for line in (
            "Share of that change that goes away when a layer, a part or a token's column has",
            "the first run's values (patched) or weights; direct is what it adds by itself:",
        ):
            out.print(line)
        for title, shares in (("layer", changes.layers), ("part", changes.parts), ("token", changes.tokens)):
            out.print()
            out.print(_share_table(title, shares[: args.top]))

    values = {
        "names": beside.names,
        "pieces": beside.pieces,
        "cosine": beside.cosine.tolist(),
        "relative": beside.relative.tolist(),
        "lens_kl": beside.lens_kl.tolist(),
        "changes": asdict(changes),
    }
    return values, show


def stage_patch(loaded: LoadedModel, args: ViewOptions) -> View:
    """The residual stream of another model's run, token by token and layer by layer, in this one's."""
    first, second = _two_runs(loaded, args)
    changes = _changes(first, second, loaded, args)
    sweep = patch_stage_residual(first, second, answer=changes.answer, other=changes.other, position=args.position)

    def show(out: Console) -> None:
        out.print(
            f"Log-probability of {changes.answer_piece} minus that of {changes.other_piece}: {sweep.target:.2f} here, "
            f"{sweep.source:.2f} in {args.compare}."
        )
        out.print("Share of the way back that the other run's value makes here, the largest of each layer:")
        out.print()
        out.print(patch_table(sweep))

    return patch_values(sweep) | {"answer": changes.answer_piece, "other": changes.other_piece}, show


def other_model(loaded: LoadedModel, name: str) -> LoadedModel:
    """The model that --compare names: a stage of the same run, or whatever `load` opens.

    Raises:
        UserError: neither a stage nor a model has that name.
    """
    stages = stages_of(loaded.run) if loaded.run.is_dir() else []
    if name in stages:
        return load(loaded.run, name)
    try:
        return load(name)
    except UserError as error:
        if not stages:
            raise
        near = nearest(name, stages)
        raise UserError(
            f"{loaded.run} has no stage {name!r}, and no model has that name",
            expected=f"{', '.join(stages)}, or a model",
            fix=f"Did you mean {near}?" if near else "",
        ) from error


def _two_runs(loaded: LoadedModel, args: ViewOptions) -> tuple[ModelRun, ModelRun]:
    """The run that is compared with, and this one."""
    if args.compare is None and args.against is None:
        raise UserError(
            "--view compare wants something to compare with",
            fix="Name a stage or a model with --compare, or another prompt with --against",
        )
    other = loaded if args.compare is None else other_model(loaded, args.compare)
    runs = [
        ModelRun(model, trace(model, prompt, SITES))
        for model, prompt in ((other, args.against or args.prompt), (loaded, args.prompt))
    ]
    if args.against is None and runs[0].trace.pieces != runs[1].trace.pieces:
        raise UserError(
            f"{args.compare} cuts the prompt into other tokens, so its layers have other positions",
            expected="a model with the same tokenizer",
        )
    return runs[0], runs[1]


def _ends(loaded: LoadedModel, args: ViewOptions) -> dict[str, int | None]:
    return {
        name: None if text is None else token_id(loaded, text, f"--{name}")
        for name, text in (("answer", args.answer), ("other", args.other))
    }


def _history(loaded: LoadedModel, args: ViewOptions, view: TraceView[Any]) -> ThroughTraining[Any]:
    stages = None if args.stage is None else [args.stage]
    with steps_line(console(sys.stderr), "Reading checkpoints") as tell:
        return through_training(loaded.run, args.prompt, view, stages=stages, progress=tell)


def _changes(first: ModelRun, second: ModelRun, loaded: LoadedModel, args: ViewOptions) -> ChangeRanking:
    with steps_line(console(sys.stderr), "Looking for what changed") as tell:
        return find_changes(first, second, position=args.position, progress=tell, **_ends(loaded, args))


def _training_heading(out: Console, recorded: Trace, args: ViewOptions, history: ThroughTraining[Any]) -> None:
    print_heading(out, recorded, args.position)
    out.print(f"{len(history)} checkpoints, {history.labels[0]} to {history.labels[-1]}", style="dim")


def _facts(history: ThroughTraining[Any], values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What every view over checkpoints prints as JSON."""
    checkpoints = [
        {"stage": checkpoint.stage, "step": checkpoint.step} | at_checkpoint
        for checkpoint, at_checkpoint in zip(history.checkpoints, values, strict=True)
    ]
    return {"pieces": history.pieces, "checkpoints": checkpoints}


def _curves(names: Sequence[str], curves: Sequence[tuple[Sequence[str], Sequence[float]]], *, sign: str = "") -> Any:
    """Named curves over the checkpoints, all on one scale."""
    flat = [value for _, values in curves for value in values]
    rows = [
        [*labels, f"{values[0]:{sign}.2f}", sparkline(values, min(flat), max(flat)), f"{values[-1]:{sign}.2f}"]
        for labels, values in curves
    ]
    return table([*names, "first", "checkpoints", "last"], rows)


def _share_table(title: str, shares: Sequence[ChangeShare]) -> Any:
    """Shares of a change; a column that says nothing of any of them is left out."""
    columns = {
        "direct": [share.direct for share in shares],
        "patched": [share.patched for share in shares],
        "weights": [share.weights for share in shares],
    }
    kept = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    rows = [
        [share.name, *("" if values[row] is None else f"{values[row]:+.2f}" for values in kept.values())]
        for row, share in enumerate(shares)
    ]
    return table([title, *kept], rows)


THROUGH_VIEWS: Mapping[str, Callable[[LoadedModel, ViewOptions], View]] = {
    "lens": through_lens,
    "attention": through_attention,
    "parts": through_parts,
    "loss": through_loss,
    "induction": through_induction,
}
"""By the name of ``--view``, with ``--through``."""
