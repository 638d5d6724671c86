"""``underhood inspect``: what a model computes on its way from a prompt to the next token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions):
    """Shows what a model computes on its way from a prompt to the next token.

    Opens a page in the browser, served by this machine alone; --html FILE
    writes the page into one file, and --view prints a view instead:

      lens         what each layer would predict, were it the last one
      attention    which tokens the heads of a layer take from
      parts        what every layer adds to the likeliest token's score
      patch        which token at which layer tells this prompt from --against
      attribution  what each token of the prompt counts for the score
      ablate       which heads and neurons the score needs
      steer        the text, led toward --toward and away from --against
      words        rank and probability of chosen words (--words) by layer
      path         how the layers move a token, in two dimensions
      similarity   how alike the layers are, or those of --compare
      factors      groups of feed-forward units that are on together
      induction    which heads repeat what came before
      experts      which experts a mixture of experts uses
      tuned        the lens with a translator for each layer (trained on --text)
      features     what a sparse autoencoder finds (trained on --text)
      probes       what linear probes read from each layer (trained on --text)

    --compare STAGE shows what another stage or model does otherwise, and what
    in it accounts for that; with --view patch, its values put into this one's
    run. --through shows lens, attention, parts, induction or loss (the surprise
    at each token) at every checkpoint that a run has kept of its training.
    """

    model: Positional[Path]
    """A run, or any model with attention: a folder, a GGUF file, a name."""

    prompt: Positional[str]
    """The text that the model reads."""

    view: str | None = None
    """Which of the views above; with --through also loss. Opens the page if left out."""

    html: Path | None = None
    """Writes the page into this file, which needs neither a server nor a network."""

    beside: tuple[str, ...] = ()
    """On the page: further models to compare with."""

    port: int = 0
    """Where the page is served; 0 takes any free port."""

    no_browser: bool = False
    """Prints the page's address without opening it."""

    chat: bool = False
    """Reads the prompt as a question, in the model's chat template."""

    stage: str | None = None
    """Which of the run's models; the last one if left out, and with --through all of them."""

    position: int = -1
    """Token of the prompt after which to look, from 0; -1 is the last one."""

    layer: int | None = None
    """The layer, from 0, that attention, factors, features and steer look at; the first, and to steer the middle
    one, if left out."""

    answer: str | None = None
    """The token whose score is followed; the likeliest one if left out."""

    other: str | None = None
    """The token whose score is subtracted; with --view patch the likeliest one of this prompt, if left out."""

    against: str | None = None
    """With --view patch: the other prompt, of as many tokens; with --view path any other; with --view steer or
    --toward the text to lead away from."""

    compare: str | None = None
    """A stage of the run, or another model of the same shape, to compare with."""

    through: bool = False
    """Shows the view at every checkpoint of the run's training."""

    words: tuple[str, ...] = ()
    """With --view words: what to follow, each one token (most often ' word'); the likeliest if left out."""

    text: str | None = None
    """A file, folder or data set for what is learnt from text; pydocs, or on the page the run's own, if left out."""

    trained: Path | None = None
    """With --view tuned and features: the file of the trained lens or autoencoder, made if it is missing; on the page
    a folder of them, which also puts them and the probes into an --html file."""

    task: str = "previous"
    """With --view probes: what is read; previous (the token before), word (does it end), line (how far its start)."""

    top: int = 5
    """How many tokens are listed in each row, or how many parts."""

    replacement: str | None = None
    """With --view attribution: the token put in place of others; a blank if left out."""

    ablation: str = "zero"
    """With --view ablate: zero, or mean, which keeps what all tokens have alike."""

    toward: str | None = None
    """With --view steer and on the page: the text to lead to."""

    strength: float = 1.0
    """With --view steer: how many times the vector is added."""

    json: bool = False
    """Prints one JSON object with all numbers."""


def run(args: Args) -> int:
    from underhood.cli.inspect_options import view_options
    from underhood.cli.inspect_views import find_view

    printed = args.view is not None or args.json or args.through or args.compare is not None
    compares = args.compare is not None and args.view in (None, "lens") and not args.through
    view = find_view("compare" if compares else args.view or "lens", through=args.through)
    if printed and args.html is not None:
        raise UserError("--html writes the page, which has all views", fix="Leave out --view, --compare and --through")
    if args.top < 1:
        raise UserError("--top is out of range", expected="a whole number from 1 up", got=str(args.top))
    if not printed:
        from underhood.cli.inspect_page import show_page

        return show_page(args)
    from underhood.infer.load import load
    from underhood.ui.terminal import console

    loaded = load(args.model, args.stage)
    values, show = view(loaded, view_options(args, loaded))
    if args.json:
        print(json.dumps(values, ensure_ascii=False))
    else:
        show(console())
    return 0
