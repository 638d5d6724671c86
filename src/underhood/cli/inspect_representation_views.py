"""Views of ``underhood inspect`` on representations: words, path, similarity, factors, induction and experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from rich.console import Console

from underhood.cli.inspect_options import View, ViewOptions, chosen_layer, print_heading, shown_shares
from underhood.cli.inspect_texts import corpus_texts
from underhood.cli.inspect_training_views import other_model
from underhood.core.errors import UserError
from underhood.core.figures import Plot, Series
from underhood.infer.load import LoadedModel
from underhood.inspect.experts import expert_layers, expert_usage, expert_usage_over
from underhood.inspect.factors import factor_information, neuron_factors, token_kind
from underhood.inspect.induction import induction_scores
from underhood.inspect.lens import logit_lens
from underhood.inspect.similarity import layer_similarity, stream_values
from underhood.inspect.trace import pieces_of, trace
from underhood.inspect.trajectory import token_paths
from underhood.inspect.word_ranks import word_ranks
from underhood.ui.terminal import table
from underhood.ui.terminal_charts import SHADES, chart

SIMILARITY_TOKENS = 1000
"""Tokens of the texts on which representations are compared."""

REPEATED = 50
"""Random tokens that are repeated, where the context has room for them."""


def _words(loaded: LoadedModel, args: ViewOptions) -> View:
    recorded = trace(loaded, args.prompt)
    words: list[str | int] = list(args.words)
    if not words:
        words = logit_lens(loaded, recorded, positions=[args.position], k=min(args.top, 4)).ids[-1, 0].tolist()
    ranks = word_ranks(loaded, recorded, words, position=args.position)

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        out.print("Rank and probability of each word before each layer, as the logit lens sees them:")
        out.print()
        rows = []
        for layer, (row, shares) in enumerate(zip(ranks.ranks.tolist(), ranks.probabilities.tolist(), strict=True)):
            name = f"{layer}" if layer < len(ranks.ranks) - 1 else "end"
            rows.append([name, *(f"{rank:,} ({share:.2f})" for rank, share in zip(row, shares, strict=True))])
        out.print(table(["layer", *ranks.pieces], rows))

    return {
        "pieces": recorded.pieces,
        "position": ranks.position,
        "words": ranks.pieces,
        "ranks": ranks.ranks.tolist(),
        "probabilities": ranks.probabilities.tolist(),
    }, show


def _path(loaded: LoadedModel, args: ViewOptions) -> View:
    prompts = [args.prompt, *([args.against] if args.against else [])]
    recorded = [trace(loaded, prompt) for prompt in prompts]
    paths = token_paths(*recorded, positions=[args.position])

    def show(out: Console) -> None:
        lines = []
        for number, points in enumerate(paths.points):
            name = f"{paths.pieces[number]} of {''.join(recorded[number].pieces)}"[:60]
            lines.append(Series(name, tuple(points[:, 0].tolist()), tuple(points[:, 1].tolist())))
        x, y = (f"component {number + 1}, {share:.0%} of the variance" for number, share in enumerate(paths.explained))
        chart(out, Plot(title="Residual streams from the embedding to the end", x=x, y=y, series=tuple(lines)))
        out.print()
        rows = [[layer, *map(float, lengths)] for layer, lengths in enumerate(paths.step_lengths().T)]
        rows = sorted(rows, key=lambda row: -max(row[1:]))[: args.top]
        out.print("The layers that move the token furthest in this plane:")
        heads = ["here", "with --against"]
        out.print(table(["layer", *heads[: len(prompts)]], rows))

    return {
        "pieces": paths.pieces,
        "positions": paths.positions,
        "points": paths.points.tolist(),
        "explained": paths.explained.tolist(),
    }, show


def _similarity(loaded: LoadedModel, args: ViewOptions) -> View:
    texts = corpus_texts(args, SIMILARITY_TOKENS * 8)
    models = [loaded, *([other_model(loaded, args.compare)] if args.compare else [])]
    if args.compare and loaded.tokenizer.encode(texts[0]) != models[1].tokenizer.encode(texts[0]):
        raise UserError(f"{args.compare} has another tokenizer", expected="a model that reads the same tokens")
    streams = [stream_values(model, texts, tokens=SIMILARITY_TOKENS) for model in models]
    similarity = layer_similarity(*streams)

    def show(out: Console) -> None:
        other = args.compare or "itself"
        out.print(f"Linear CKA of the residual streams with those of {other}, on {similarity.tokens:,} tokens:")
        out.print()
        _shade_grid(out, similarity.values)
        out.print()
        steps = similarity.values.diagonal(1 if not args.compare else 0)
        lowest = steps.argsort()[: args.top].tolist()
        what = "Neighbours that differ most" if not args.compare else "Layers that differ most between the two"
        rows = [
            [f"{layer}" if args.compare else f"{layer} and {layer + 1}", f"{float(steps[layer]):.3f}"]
            for layer in lowest
        ]
        out.print(f"{what}:")
        out.print(table(["streams", "CKA"], rows))

    return {"measure": similarity.measure, "tokens": similarity.tokens, "values": similarity.values.tolist()}, show


def _factors(loaded: LoadedModel, args: ViewOptions) -> View:
    layer = chosen_layer(loaded, args)
    recorded = trace(loaded, args.prompt, [f"units.{layer}"])
    count = min(6, len(recorded.ids))
    factors = neuron_factors(recorded, count)
    kinds = [token_kind(piece) for piece in recorded.pieces]
    information = factor_information(factors.strengths, kinds)

    def show(out: Console) -> None:
        out.print(f"{count} groups of units of layer {layer} that are on together, the largest first.", style="bold")
        out.print(
            f"They explain {factors.explained:.0%}. same: correlation with the groups of other seeds; "
            "kind: bits about the kind of token, and by chance."
        )
        out.print()
        rows = []
        for factor, bits in enumerate(information):
            top = factors.top_tokens(factor, args.top)
            tokens = shown_shares((recorded.pieces[token], strength) for token, strength in top if strength > 0.005)
            same = f"{float(factors.agreement[factor]):.2f}"
            rows.append([str(factor), same, f"{bits.bits:.2f} ({bits.shuffled:.2f})", tokens])
        out.print(table(["", "same", "kind", "strongest tokens"], rows))

    return {
        "pieces": recorded.pieces,
        "layer": layer,
        "strengths": factors.strengths.T.tolist(),
        "agreement": factors.agreement.tolist(),
        "explained": factors.explained,
        "units": [factors.top_units(factor) for factor in range(count)],
        "information": [vars(each) for each in information],
    }, show


def _induction(loaded: LoadedModel, args: ViewOptions) -> View:
    room = (loaded.decoder.context_length - len(loaded.prompt_ids(""))) // 2
    length = min(REPEATED, room)
    scores = induction_scores(loaded, length=length)

    def show(out: Console) -> None:
        out.print(f"{length} random tokens, read twice; the prompt is not used.", style="bold")
        out.print(
            f"Loss of the first half {scores.first_loss:.2f} nats, of the second {scores.second_loss:.2f}. "
            "Mean weight of a head in the second half, the largest:"
        )
        out.print()
        rows = []
        columns = [scores.strongest(score, args.top) for score in ("induction", "previous", "duplicate")]
        for heads in zip(*columns, strict=True):
            rows.append([f"layer {layer} head {head}  {score:.2f}" for layer, head, score in heads])
        out.print(table(["after the earlier one", "token before", "earlier one itself"], rows))

    return {
        "layers": scores.layers,
        "length": length,
        "induction": scores.induction.tolist(),
        "previous": scores.previous.tolist(),
        "duplicate": scores.duplicate.tolist(),
        "first_loss": scores.first_loss,
        "second_loss": scores.second_loss,
    }, show


def _experts(loaded: LoadedModel, args: ViewOptions) -> View:
    expert_layers(loaded.decoder)  # the error for a model without experts, before its sites are asked for
    if args.text:
        usage = expert_usage_over(loaded, corpus_texts(args, SIMILARITY_TOKENS * 8))
    else:
        usage = expert_usage(loaded, trace(loaded, args.prompt, ["router"]))
    loads = usage.load.tolist()

    def show(out: Console) -> None:
        out.print(f"{len(usage.ids):,} tokens, {usage.chosen.shape[-1]} of {usage.experts} experts each", style="bold")
        out.print("in use: how many experts in effect, by the entropy of the load; then the busiest with their share:")
        out.print()
        rows = []
        for row, layer in enumerate(usage.layers):
            order = usage.load[row].argsort(descending=True)[: args.top].tolist()
            busiest = "  ".join(f"{expert} {loads[row][expert]:.2f}" for expert in order)
            rows.append([str(layer), f"{float(usage.effective[row]):.1f}", busiest])
        out.print(table(["layer", "in use", "busiest"], rows))

    return {
        "pieces": pieces_of(loaded, usage.ids),
        "layers": usage.layers,
        "chosen": usage.chosen.tolist(),
        "weights": usage.weights.tolist(),
        "load": loads,
        "effective": usage.effective.tolist(),
    }, show


def _shade_grid(out: Console, values: torch.Tensor) -> None:
    """Values from 0 to 1 as shades, a row for each stream; two characters each where the width allows it."""
    wide = 2 if values.shape[1] <= 36 else 1
    for layer, row in enumerate(values[:, : 76 // wide].tolist()):
        cells = (SHADES[min(max(int(value * len(SHADES)), 0), len(SHADES) - 1)] * wide for value in row)
        out.print(f"{layer:>2} " + "".join(cells))
    out.print(f"   blank below 0.2, {SHADES[1]} to 0.4, {SHADES[2]} to 0.6, {SHADES[3]} to 0.8, {SHADES[4]} above")


VIEWS: Mapping[str, Callable[[LoadedModel, ViewOptions], View]] = {
    "words": _words,
    "path": _path,
    "similarity": _similarity,
    "factors": _factors,
    "induction": _induction,
    "experts": _experts,
}
"""By the name of ``--view``."""
