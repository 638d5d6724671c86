"""Views of ``underhood inspect`` that ask what a score rests on: attribution, ablation, and steering."""

from __future__ import annotations

import torch
from rich.console import Console

from underhood.cli.inspect_options import (
    View,
    ViewOptions,
    chosen_layer,
    position_in,
    print_heading,
    scored_tokens,
    token_id,
)
from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.ablation import check_mode
from underhood.inspect.ablation_grid import UnitEffects, head_grid, unit_effects
from underhood.inspect.attribution import Attribution, attribute
from underhood.inspect.deletion import DeletionCurve, deletion_curves
from underhood.inspect.sites import sites_of
from underhood.inspect.steering import steer, steering_vector
from underhood.inspect.target import Target
from underhood.inspect.trace import Trace, pieces_of, trace
from underhood.ui.terminal import table

ROWS_MAX = 40
"""Tokens that a table lists; of longer prompts those that count most."""

ORDERS = 10
"""Random orders beside a deletion curve."""


def attribution_view(loaded: LoadedModel, args: ViewOptions) -> View:
    """Gradient × input, integrated gradients and occlusion of the prompt's tokens, with deletion curves."""
    recorded, target, words = _target(loaded, args)
    replacement = None if args.replacement is None else token_id(loaded, args.replacement, "--replacement")
    results = attribute(loaded, recorded.ids, target, replacement=replacement)
    curves, raised = (
        deletion_curves(loaded, results, replacement=replacement, insertion=back, orders=ORDERS)
        for back in (False, True)
    )

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        out.print(f"The {words} is {results[0].score:.2f}. What each token counts for it, in percent:")
        out.print()
        heads = ["token", "gradient × input", "signed", "integrated", "occlusion"]
        out.print(table(heads, _token_rows(results)))
        out.print()
        out.print(
            f"Its mean while {curves[0].replacement} replaces the tokens, the highest first (deletion, low is good),"
        )
        out.print("and while they are put back (insertion, high is good):")
        out.print()
        rows = [[curve.method, curve.area, back.area] for curve, back in zip(curves, raised, strict=True)]
        rows.append(["random orders", curves[0].random_area, raised[0].random_area])
        out.print(table(["order", "deletion", "insertion"], rows))
        integrated = results[2]
        out.print()
        change, missed = integrated.score - (integrated.baseline_score or 0.0), abs(integrated.error or 0.0)
        out.print(f"Integrated gradients: {integrated.steps} steps from {integrated.baseline}.", style="dim")
        out.print(f"Together they miss the change of the score, {change:.3g}, by {missed:.2g}.", style="dim")

    methods = [_method(result, curve, back) for result, curve, back in zip(results, curves, raised, strict=True)]
    return {"pieces": results[0].pieces, "score": results[0].score, "target": words, "methods": methods}, show


def ablation_view(loaded: LoadedModel, args: ViewOptions) -> View:
    """Every head of the model ablated by itself, and the neurons that matter most."""
    check_mode(args.ablation)
    mode = "mean" if args.ablation == "mean" else "zero"
    recorded, target, words = _target(loaded, args)
    grid = head_grid(loaded, recorded.ids, target, mode=mode)
    neurons: UnitEffects | None = None
    if any(site.startswith("units.") for site in sites_of(loaded.decoder)):
        neurons = unit_effects(loaded, recorded.ids, target, count=args.top, mode=mode)
    effect = "set to zero" if mode == "zero" else "set to their mean over the tokens"

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        out.print(f"The {words} is {grid.score:.2f}. Heads that change it most when they are {effect}:")
        out.print()
        rows = [[layer, head, f"{change:+.2f}"] for layer, head, change in grid.largest(args.top)]
        out.print(table(["layer", "head", "change"], rows))
        if neurons is None:
            return
        out.print()
        out.print("The same for single neurons, and what one backward pass estimates:")
        out.print()
        columns = (neurons.layers, neurons.units, neurons.changes.tolist(), neurons.estimates.tolist())
        rows = [[*owner, f"{exact:+.2f}", f"{guess:+.2f}"] for *owner, exact, guess in zip(*columns, strict=True)]
        out.print(table(["layer", "neuron", "change", "estimate"], rows))

    values = {"pieces": recorded.pieces, "target": words, "score": grid.score, "mode": mode}
    changes = [[None if change != change else change for change in row] for row in grid.changes.tolist()]
    units = [] if neurons is None else list(zip(neurons.layers, neurons.units, neurons.changes.tolist(), strict=True))
    return values | {"heads": changes, "neurons": units}, show


def steering_view(loaded: LoadedModel, args: ViewOptions) -> View:
    """The prompt continued as it is, and with a steering vector added and subtracted."""
    if args.toward is None or args.against is None:
        raise UserError(
            "--view steer needs two texts", fix='Name them, e.g. --toward "I love it" --against "I hate it"'
        )
    layer = chosen_layer(loaded, args, default=len(loaded.decoder.blocks) // 2, end=True)
    vector = steering_vector(loaded, [args.toward], [args.against], layer=layer)
    strengths = (0.0, args.strength, -args.strength)
    results = steer(loaded, args.prompt, vector, strengths=strengths)

    def show(out: Console) -> None:
        out.print(f"Added before layer {layer}: {vector.positive[0]!r} minus {vector.negative[0]!r},", style="bold")
        out.print(f"of length {vector.norm:.1f} in a residual stream of {vector.stream_norm:.1f}.")
        for strength, text in zip(strengths, results.texts, strict=True):
            out.print()
            out.print(f"strength {strength:g}", style="dim")
            out.print(args.prompt + text if isinstance(args.prompt, str) else text)

    texts = dict(zip(map(str, strengths), results.texts, strict=True))
    return {"layer": layer, "norm": vector.norm, "stream_norm": vector.stream_norm, "texts": texts}, show


def _target(loaded: LoadedModel, args: ViewOptions) -> tuple[Trace, Target, str]:
    """The prompt's trace, the number that is explained, and its name."""
    recorded = trace(loaded, args.prompt, [f"residual.{len(loaded.decoder.blocks)}"])
    position = position_in(recorded, args.position)
    token, against = scored_tokens(loaded, args, recorded, position)
    target = Target(token=token, against=against, position=position, logprob=True)  # a logit alone may shift with all
    return recorded, target, target.named(pieces_of(loaded, [token, token if against is None else against]))


def _token_rows(results: tuple[Attribution, ...]) -> list[list[str]]:
    """A row per token: shares of each method in percent, with a sign where the method has them."""
    pieces = results[0].pieces
    shown = range(len(pieces))
    if len(pieces) > ROWS_MAX:
        total_T = torch.stack([result.shares for result in results]).sum(dim=0)
        shown = sorted(total_T.argsort(descending=True)[:ROWS_MAX].tolist())
    signed = [result.shares * result.values.sign() * 100 for result in results]
    return [
        [pieces[token], *(f"{shares[token]:{'+' if number else ''}.1f}" for number, shares in enumerate(signed))]
        for token in shown
    ]


def _method(result: Attribution, curve: DeletionCurve, back: DeletionCurve) -> dict[str, object]:
    """The numbers of a method for JSON."""
    return {
        "method": result.method,
        "values": result.values.tolist(),
        "baseline": result.baseline,
        "completeness_error": result.error,
        "counts": curve.counts,
        "deletion": curve.scores.tolist(),
        "deletion_area": curve.area,
        "deletion_area_random": curve.random_area,
        "insertion": back.scores.tolist(),
        "insertion_area": back.area,
        "insertion_area_random": back.random_area,
    }
