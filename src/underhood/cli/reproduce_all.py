"""``underhood reproduce --all``: every milestone in a process of its own, two at a time, each result kept at once."""

from __future__ import annotations

import multiprocessing
import os
import queue
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from underhood.core.milestone import SCALES
from underhood.curriculum import index, results
from underhood.curriculum.reproduce import digest, failures, reproduce
from underhood.ui import terminal
from underhood.ui.formatting import minutes

if TYPE_CHECKING:
    from underhood.cli.reproduce import Args

PROCESSES = 2


def run_all(args: Args) -> int:
    """Measures what has no result of its present file at this scale; returns 1 if anything failed."""
    from underhood.cli.reproduce_view import Progress

    out = terminal.console()
    waiting = [stem for stem in index.milestones() if args.restart or not up_to_date(stem, args)]
    known = len(index.milestones()) - len(waiting)
    if known:
        out.print(f"{known} of {len(index.milestones())} are up to date.", style="dim")
    # Read by the children before they load torch: with one thread each, two do not slow each other down.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    running: dict[str, BaseProcess] = {}
    problems: dict[str, str] = {}
    with Progress(out) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < PROCESSES:
                    stem = waiting.pop(0)
                    running[stem] = context.Process(target=_work, args=(stem, args, told), daemon=True)
                    running[stem].start()
                try:
                    stem, share, words = told.get(timeout=0.5)
                except queue.Empty:
                    for stem in [name for name, process in running.items() if not process.is_alive()]:
                        problems[stem] = f"its process ended with code {running.pop(stem).exitcode}"
                        progress.done(stem, problems[stem])
                    continue
                if share is not None:
                    progress.tell(stem, share, words)
                    continue
                running.pop(stem).join()
                progress.done(stem, words)
                if words.startswith("failed"):
                    problems[stem] = words
        finally:
            for process in running.values():
                process.terminate()
    if problems:
        out.print(f"Failed: {', '.join(problems)}.", style="bold")
    terminal.next_commands(out, {"underhood path": "the map, with every verdict"})
    return 1 if problems else 0


def up_to_date(stem: str, args: Args) -> bool:
    """Whether the user's results hold one of the milestone's present file, at this scale or a larger one."""
    for file in sorted((args.folder / stem).glob("*.json")):
        stored = results.load(file)
        if stored.get("source") == digest(stem) and SCALES.index(stored["scale"]) >= SCALES.index(args.scale):
            return True
    return False


def _work(stem: str, args: Args, told: Any) -> None:
    """Measures one milestone in a process of its own; says ``(stem, None, words)`` at the end."""
    try:
        result = reproduce(
            index.find(stem),
            args.scale,
            seeds=args.seeds,
            data=args.data,
            listener=lambda share, words: told.put((stem, share, words)),
        )
        file = results.save(args.folder, result)
        took = minutes(result["minutes_with_ablations"], " ")
        wrong = failures(result)
        words = f"{result['verdict'] or 'nothing judged at this scale'}, {took} → {file}"
        told.put((stem, None, f"failed: {'; '.join(wrong)}" if wrong else words))
    except Exception as error:
        import traceback

        traceback.print_exc()
        told.put((stem, None, f"failed: {type(error).__name__}: {error}"))
    except KeyboardInterrupt:
        pass
