"""``underhood reproduce``: measures milestones on this machine and says of every claim whether it held."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underhood.cli.options import Positional
from underhood.core.errors import UserError


@dataclass(frozen=True)
class Args:
    """Measures a milestone's claims here: claim, the paper's number, this machine's, verdict.

    NAME is a milestone, as underhood path lists them, or seventy_five_years: all
    models on one text (underhood path years shows the published ones). The result goes to your own
    folder (below), never to the published results. Thresholds are fixed in the
    milestone's milestone.toml beforehand. A claim holds if the whole 95 % interval
    over seeds is on the right side. Then the idea is taken away (an ablation):
    a claim that held must fail.
    """

    names: Positional[tuple[str, ...]] = ()
    """Milestones to measure, e.g. p1913_markov."""

    scale: Literal["smoke", "report"] = "report"
    """smoke: seconds, to see that it runs; report: minutes, to be believed."""

    seeds: int | None = None
    """How many random seeds, if not what the milestone says."""

    data: Path | None = None
    """Folder with data that no package brings (text/onegin, vision/mnist …)."""

    results: Path | None = None
    """Folder of the results; left out, results in $UNDERHOOD_HOME, or in
    underhood in $XDG_DATA_HOME or ~/.local/share."""

    record: bool = False
    """For developers: writes into the repository's results, which are published."""

    all: bool = False
    """Measures every milestone, two at a time; goes on where it was stopped."""

    restart: bool = False
    """With --all: measures also what is up to date."""

    recompute: bool = False
    """Judges stored results again by the present rules, without measuring the
    claims. Ablations that were stored without the intact run are measured."""

    json: bool = False
    """Prints the results as JSON."""

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"--seeds takes 1 or more, got {self.seeds}")
        if self.record and self.results is not None:
            raise ValueError("--record names the folder already; leave out --results")

    @property
    def folder(self) -> Path:
        """Where results are read and written."""
        from underhood.curriculum.results import recorded, user_results

        if self.record:
            return recorded()
        return user_results() if self.results is None else self.results


def run(args: Args) -> int:
    from underhood.curriculum import index
    from underhood.curriculum.years import STEM as YEARS

    if args.all == bool(args.names):
        raise UserError("name milestones, or say --all", fix="underhood path lists them")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"--data {args.data} is not a folder")
    if args.recompute:
        chosen = list(index.milestones()) if args.all else [index.find(name).stem for name in args.names]
        return _recompute(args, chosen)
    if YEARS in args.names:
        from underhood.cli import reproduce_years

        if len(args.names) > 1:
            raise UserError(f"{YEARS} takes long and is measured alone", fix="name it without the others")
        return reproduce_years.measure(args, pages_folder(args))
    if args.all:
        from underhood.cli.reproduce_all import run_all

        return run_all(args)
    chosen = list(dict.fromkeys(index.find(name).stem for name in args.names))
    return max(_one(args, stem) for stem in chosen)


def _recompute(args: Args, stems: list[str]) -> int:
    from underhood.curriculum import index, results
    from underhood.curriculum.reproduce import failures, recompute
    from underhood.ui import terminal

    out, problems = terminal.console(), []
    for stem in dict.fromkeys(stems):
        for file, old in results.all_of(stem, args.folder):
            result = recompute(index.milestones()[stem], old, data=args.data)
            results.write(file, result)
            out.print(f"{file}: {old.get('verdict')} → {result['verdict']}", soft_wrap=True)
            problems += [f"{stem}: {problem}" for problem in failures(result)]
    for problem in problems:
        out.print(problem, soft_wrap=True)
    return 1 if problems else 0


def pages_folder(args: Args) -> Path:
    """Where the pages of a measurement go; not below the repository's results, which hold measurements only."""
    from underhood.curriculum import results
    from underhood.curriculum.pages.site import PAGES

    return (results.user_results() if args.record else args.folder) / PAGES


def _one(args: Args, stem: str) -> int:
    import sys

    from underhood.cli.reproduce_view import Progress, show
    from underhood.curriculum import results
    from underhood.curriculum.index import find
    from underhood.curriculum.pages.site import refresh
    from underhood.curriculum.reproduce import failures, reproduce
    from underhood.ui import terminal

    milestone = find(stem)
    out = terminal.console(sys.stderr if args.json else None)
    with Progress(out) as progress:
        result = reproduce(
            milestone,
            args.scale,
            seeds=args.seeds,
            data=args.data,
            listener=progress.of(stem),
        )
    file = results.save(args.folder, result)
    if args.json:
        print(json.dumps({"file": str(file)} | result, ensure_ascii=False))
    else:
        page = refresh(pages_folder(args), results.places(args.folder), stem)
        show(out, milestone, result, file, page)
    return 1 if failures(result) else 0
