"""The views of ``underhood inspect``: numbers for JSON, and tables of them for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console

from underhood.cli import inspect_representation_views, inspect_trained_views
from underhood.cli.inspect_attribution_views import ablation_view, attribution_view, steering_view
from underhood.cli.inspect_options import (
    View,
    ViewOptions,
    chosen_layer,
    layer_table,
    likeliest_token,
    patch_table,
    patch_values,
    position_in,
    print_heading,
    scored_tokens,
    shown_shares,
    token_id,
)
from underhood.cli.inspect_probe_view import probes_view
from underhood.cli.inspect_training_views import THROUGH_VIEWS, compared, stage_patch
from underhood.core.errors import UserError, nearest
from underhood.infer.load import LoadedModel
from underhood.inspect.contributions import SITES, contributions
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
from underhood.inspect.trace import pieces_of, trace
from underhood.ui.terminal import table


def _lens(loaded: LoadedModel, args: ViewOptions) -> View:
    recorded = trace(loaded, args.prompt)
    lens = logit_lens(loaded, recorded, positions=[args.position], k=args.top)
    layers = [
        {
            "layer": layer,
            "rank": int(lens.ranks[layer, 0]),
            "bits": float(lens.entropy[layer, 0]),
            "tokens": lens.row(layer),
        }
        for layer in range(len(lens.ids))
    ]

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        final = lens.row(-1)[0][0]
        out.print(f"What it would say before each layer, and at which rank {final} is then:")
        out.print()
        out.print(layer_table(lens, ["rank", "likeliest"], [[f"{row['rank']:,}" for row in layers]]))

    return {"pieces": recorded.pieces, "layers": layers}, show


def _attention(loaded: LoadedModel, args: ViewOptions) -> View:
    layer = chosen_layer(loaded, args)
    recorded = trace(loaded, args.prompt, [f"query.{layer}", f"key.{layer}"])
    pattern_HTT = recorded.pattern(layer)
    position = position_in(recorded, args.position)
    row_HT = pattern_HTT[:, position]

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        out.print(f"Where the heads of layer {layer} look from there, the largest weights first:")
        out.print()
        rows = []
        for head, weights_T in enumerate(row_HT):
            top = weights_T.topk(min(args.top, position + 1))
            words = [
                (recorded.pieces[token], weight)
                for weight, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                if weight >= 0.005
            ]
            rows.append([str(head), shown_shares(words)])
        out.print(table(["head", "tokens"], rows))

    return {"pieces": recorded.pieces, "layer": layer, "weights": row_HT.tolist()}, show


def _parts(loaded: LoadedModel, args: ViewOptions) -> View:
    recorded = trace(loaded, args.prompt, SITES)
    position = position_in(recorded, args.position)
    token, against = scored_tokens(loaded, args, recorded, position)
    parts = contributions(loaded, recorded, token, against=against, position=position)

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        names = pieces_of(loaded, [token if against is None else against, token])
        what = names[1] if against is None else f"{names[1]} minus that of {names[0]}"
        out.print(f"The score of {what} is {parts.score:.2f}. What adds most to it, or takes away:")
        out.print()
        rows = [[name, f"{value:+.2f}"] for name, value in parts.largest(max(args.top, 10))]
        out.print(table(["part", "adds"], rows))
        out.print()
        out.print(f"All {len(parts.names)} parts together miss the score by {abs(parts.error):.1g}.", style="dim")

    values = dict(zip(parts.names, parts.values.tolist(), strict=True))
    return {"pieces": recorded.pieces, "score": parts.score, "constant": parts.constant, "parts": values}, show


def _patch(loaded: LoadedModel, args: ViewOptions) -> View:
    if args.compare is not None:
        return stage_patch(loaded, args)
    if args.against is None:
        raise UserError(
            "--view patch compares two prompts, or two models",
            fix="Give the other one with --against or --compare",
        )
    ends = [trace(loaded, prompt) for prompt in (args.against, args.prompt)]
    likeliest = [likeliest_token(loaded, each, len(each.ids) - 1) for each in ends]
    answer = token_id(loaded, args.answer, "--answer") if args.answer else likeliest[0]
    other = token_id(loaded, args.other, "--other") if args.other else likeliest[1]
    if answer == other:
        raise UserError(
            f"both prompts go on with {pieces_of(loaded, [answer])[0]!r}",
            fix="Name two tokens with --answer and --other",
        )
    sweep = patch_residual(loaded, *ends, answer=answer, other=other)

    def show(out: Console) -> None:
        first, second = pieces_of(loaded, [answer, other])
        out.print(
            f"Score of {first} minus that of {second}: {sweep.target:.2f} here, {sweep.source:.2f} after --against."
        )
        out.print("Share of the way that one token's value from there makes here, the largest of each layer:")
        out.print()
        out.print(patch_table(sweep))

    return patch_values(sweep), show


VIEWS: Mapping[str, Callable[[LoadedModel, ViewOptions], View]] = {
    "lens": _lens,
    "attention": _attention,
    "parts": _parts,
    "patch": _patch,
    "compare": compared,
    "attribution": attribution_view,
    "ablate": ablation_view,
    "steer": steering_view,
    **inspect_representation_views.VIEWS,
    **inspect_trained_views.VIEWS,
    "probes": probes_view,
}
"""By the name of ``--view``."""


def find_view(name: str, *, through: bool) -> Callable[[LoadedModel, ViewOptions], View]:
    """The view of a name, of one model or through training.

    Raises:
        UserError: there is none; it says which there are.
    """
    views = THROUGH_VIEWS if through else VIEWS
    if name not in views:
        near = nearest(name, views)
        fix = f"--view {name} needs --through" if name in THROUGH_VIEWS else f"Did you mean {near}?" if near else ""
        over = " --through" if through else ""
        raise UserError(f"underhood inspect{over} has no view {name!r}", expected=", ".join(views), fix=fix)
    return views[name]
