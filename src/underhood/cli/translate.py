"""``underhood translate``: trains an encoder–decoder on pairs, and translates with it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.core.text_files import read_standard_input
from underhood.recipes.translation_spec import TranslateSpec

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.translation import TranslationResult


@dataclass(frozen=True, kw_only=True)
class Args(TranslateSpec):
    """Trains the Transformer of 2017 on pairs from --data, and says how well it
    translates held-out sources; or translates with a model so trained.

      underhood translate runs/dates --data dates     the built-in example
      underhood translate runs/dates "5th of May 99"  translates a text
      underhood translate runs/fr --data pairs.tsv    source and target, with a
                                                      tab between

    Pairs are TSV, CSV, JSON lines or Parquet. Without texts, standard input is
    translated line by line.
    """

    run: Positional[Path]
    """Folder of the model."""

    text: Positional[tuple[str, ...]] = ()
    """Texts to translate."""

    data: tuple[str, ...] = ()
    """Files of pairs to learn from; dates for the built-in example."""

    beams: int = 4
    """Beginnings that beam search keeps; 1 is greedy."""

    length_penalty: float = 0.6
    """Power of the length that a log-probability is divided by; 0 favours short translations."""

    penalty: Literal["power", "gnmt"] = "power"
    """Divides by l^α, or by ((5 + l) / 6)^α as Google's translator of 2016 did."""

    stop: Literal["full", "likely", "certain"] = "certain"
    """When the search ends: as many texts have ended as there are beams; none is likely to become better; none can."""

    n: int = 1
    """Translations of each text, best first."""

    json: bool = False
    """Prints JSON."""

    def __post_init__(self):
        if self.data:
            super().__post_init__()


def run(args: Args) -> int:
    if args.data and args.text:
        raise UserError("--data trains and a text asks for a translation", fix="Give one of them")
    return _train(args) if args.data else _translate(args)


def _train(args: Args) -> int:
    from underhood.cli.training_verb import follow_training
    from underhood.recipes.translation import train_translator

    ending = {"command": 'translate RUN "…"', "about": "translate a text"}
    return follow_training(*train_translator(args.settings, args.run), _show, as_json=args.json, **ending)


def _show(screen: Console, done: TranslationResult) -> None:
    from underhood.ui.terminal import table

    screen.print(f"\n{done.tested_on:,} held-out sources; learnt from {done.learnt_from:,} pairs.")
    rows = [["exact", f"{done.exact:.1%}", f"95 % interval {done.low:.1%} to {done.high:.1%}"]]
    rows += [["BLEU", f"{done.bleu:.2f}", "of the corpus, in percent"]]
    rows += [["held-out loss", f"{done.loss:.3f}", "nats per token"]]
    screen.print(table(["", "", ""], rows))
    screen.print(f"BLEU's signature: {done.signature}", soft_wrap=True, style="dim")
    for source, written, wanted in done.examples[:4]:
        screen.print(
            f"  {source}\n  → {written}" + ("" if written == wanted else f"   (given: {wanted})"), markup=False
        )


def _translate(args: Args) -> int:
    from underhood.core.device import choose_device
    from underhood.infer.beam import BeamSpec
    from underhood.infer.translator import load_translator

    if not 1 <= args.n <= args.beams:
        raise UserError("--n is out of range", expected=f"from 1 to the number of beams, {args.beams}", got=str(args.n))
    translator = load_translator(args.run, device=choose_device(args.device))
    texts = list(args.text)
    if not texts:
        if sys.stdin.isatty():
            raise UserError("there is nothing to translate", fix="Give a text, or pipe texts in, one to a line")
        texts = [line for line in read_standard_input().splitlines() if line.strip()]
    search = BeamSpec(beams=args.beams, length_penalty=args.length_penalty, penalty=args.penalty, stop=args.stop)
    for text, best in zip(texts, translator.translate(texts, search, n=args.n), strict=True):
        if args.json:
            print(json.dumps({"source": text, "translations": [asdict(each) for each in best]}, ensure_ascii=False))
        elif args.n == 1:
            print(best[0].text)
        else:
            print(text)
            for each in best:
                print(f"{each.score:8.3f}  {each.text}")
    return 0
