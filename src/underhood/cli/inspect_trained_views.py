"""Views of ``underhood inspect`` that need training first: the tuned lens, and features of a sparse autoencoder.

The result is kept in the file that ``--trained`` names, and read from there the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from underhood.cli.inspect_options import View, ViewOptions, chosen_layer, layer_table, position_in, print_heading
from underhood.cli.inspect_texts import corpus_texts
from underhood.core.errors import UserError
from underhood.core.files import storage_errors
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, corpus_values, token_windows
from underhood.inspect.default_training import (
    AUTOENCODER_CHARACTERS,
    AUTOENCODER_STEPS,
    EXAMPLE_CHARACTERS,
    LENS_CHARACTERS,
    LENS_STEPS,
    default_autoencoder,
    default_tuned_lens,
)
from underhood.inspect.lens import logit_lens
from underhood.inspect.sae import SparseAutoencoder, load_autoencoder, spliced_loss
from underhood.inspect.sae_examples import feature_examples
from underhood.inspect.trace import trace
from underhood.inspect.tuned_lens import TunedLens, load_tuned_lens, tuned_lens
from underhood.ui.terminal import console

SECONDS_BETWEEN_LINES = 10.0


def _tuned(loaded: LoadedModel, args: ViewOptions) -> View:
    translators = _tuned_lens_of(loaded, args)
    recorded = trace(loaded, args.prompt)
    lenses = [
        logit_lens(loaded, recorded, positions=[args.position], k=args.top),
        tuned_lens(loaded, recorded, translators, positions=[args.position], k=args.top),
    ]
    layers = [
        {
            "layer": layer,
            "rank": int(lenses[1].ranks[layer, 0]),
            "plain_rank": int(lenses[0].ranks[layer, 0]),
            "bits": float(lenses[1].entropy[layer, 0]),
            "tokens": lenses[1].row(layer),
        }
        for layer in range(len(lenses[1].ids))
    ]

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        final = lenses[1].row(-1)[0][0]
        out.print(f"What each layer knows, by a tuned lens; the rank of {final} by it and by the plain lens:")
        out.print()
        ranks = [[f"{row[name]:,}" for row in layers] for name in ("rank", "plain_rank")]
        out.print(layer_table(lenses[1], ["tuned", "plain", "likeliest by the tuned lens"], ranks))

    return {"pieces": recorded.pieces, "layers": layers}, show


def _features(loaded: LoadedModel, args: ViewOptions) -> View:
    autoencoder = _autoencoder_of(loaded, args)
    texts = corpus_texts(args, EXAMPLE_CHARACTERS)
    values = corpus_values(loaded, token_windows(loaded, texts), [autoencoder.site])
    explained = autoencoder.explained(values[autoencoder.site][values.positions >= SKIPPED])
    losses = spliced_loss(loaded, autoencoder, texts)
    recorded = trace(loaded, args.prompt, [autoencoder.site])
    strengths_Tk, chosen_Tk = autoencoder.features(recorded[autoencoder.site])
    position = position_in(recorded, args.position)
    sizes = [size for size in strengths_Tk[position].tolist()[: args.top] if size > 0]
    own = chosen_Tk[position].tolist()[: len(sizes)]
    examples = feature_examples(loaded, autoencoder, texts, features=own, count=3, context=5)

    def show(out: Console) -> None:
        print_heading(out, recorded, args.position)
        out.print(
            f"{len(autoencoder.decoder):,} features of {autoencoder.site} explain {explained:.0%} of its variance. "
            f"With them in place of its values the loss is {losses.spliced:.2f}, not {losses.plain:.2f} nats "
            f"({losses.zeroed:.2f} with nothing)."
        )
        for size, feature in zip(sizes, examples, strict=True):
            out.print()
            out.print(
                f"feature {feature.feature}, {size:.2f} here, on {feature.density:.1%} of all tokens", style="bold"
            )
            for example in feature.examples:
                out.print(f"  {_middle(example.before, example.token, example.after)}")

    return {
        "pieces": recorded.pieces,
        "site": autoencoder.site,
        "explained": explained,
        "losses": vars(losses),
        "features": [
            {"feature": each.feature, "strength": size, "density": each.density}
            | {"examples": [vars(example) for example in each.examples]}
            for size, each in zip(sizes, examples, strict=True)
        ],
    }, show


def _middle(before: str, token: str, after: str) -> str:
    """A token in brackets with its surroundings, on a line."""
    return f"{before[-26:]}[{token[:18]}]{after[:26]}".replace("\n", "⏎")


def _tuned_lens_of(loaded: LoadedModel, args: ViewOptions) -> TunedLens:
    file = _trained_file(args, "tuned", "a tuned lens")
    if file.exists():
        return load_tuned_lens(file, loaded)
    lens = default_tuned_lens(loaded, corpus_texts(args, LENS_CHARACTERS), _telling("tuned lens", LENS_STEPS))
    lens.save(file)
    return lens


def _autoencoder_of(loaded: LoadedModel, args: ViewOptions) -> SparseAutoencoder:
    file = _trained_file(args, "features", "an autoencoder")
    if file.exists():
        autoencoder = load_autoencoder(file)
        if autoencoder.decoder.shape[1] != loaded.decoder.spec.d_model:
            raise UserError(f"{file} was made for another model", expected=f"width {loaded.decoder.spec.d_model}")
        return autoencoder
    layer = chosen_layer(loaded, args, end=True)
    autoencoder = default_autoencoder(
        loaded,
        corpus_texts(args, AUTOENCODER_CHARACTERS),
        layer,
        _telling("sparse autoencoder", AUTOENCODER_STEPS),
    )
    autoencoder.save(file)
    return autoencoder


def _trained_file(args: ViewOptions, view: str, what: str) -> Path:
    """The file that ``--trained`` names, in a folder that exists.

    Raises:
        UserError: none is named, or its folder can't be made.
    """
    if args.trained is None:
        raise UserError(
            f"--view {view} needs {what}",
            fix="Name its file with --trained; if there is no such file yet, it is trained on --text, and kept there",
        )
    with storage_errors(args.trained, "Name another file with --trained"):  # before minutes of training, not after
        args.trained.parent.mkdir(parents=True, exist_ok=True)
    return args.trained


def _telling(what: str, steps: int) -> Callable[[int, float], None]:
    """Writes a line on standard error now and then."""
    import sys

    out, shown = console(sys.stderr), time.monotonic()

    def tell(step: int, value: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            out.print(f"Training the {what}: step {step + 1:,} of {steps:,}, {value:.3f}")

    return tell


VIEWS: Mapping[str, Callable[[LoadedModel, ViewOptions], View]] = {"tuned": _tuned, "features": _features}
"""By the name of ``--view``."""
