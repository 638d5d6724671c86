"""The page of ``underhood inspect``: served on this machine, or written into one file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.live import Live
from rich.text import Text

from underhood.core.errors import UserError
from underhood.ui.formatting import size
from underhood.ui.terminal import console
from underhood.web.inside.file import write_file
from underhood.web.inside.file_extras import Extras
from underhood.web.inside.routes import PAGE, create_inside_app
from underhood.web.inside.subjects import InsideModels
from underhood.web.server import listen, serve
from underhood.web.settings import ServeSettings

SECONDS_BETWEEN_LINES = 10.0


def show_page(args: Any) -> int:
    """Writes or serves the page of `cli.inspect.Args`.

    Raises:
        UserError: an option does not fit, or as `write_page` and `serve_page`.
    """
    if args.trained is not None and args.trained.exists() and not args.trained.is_dir():
        raise UserError(
            f"{args.trained} is a file", expected="on the page a folder", fix="Name a folder with --trained"
        )
    if args.toward is not None and args.against is None:
        raise UserError("--toward needs a text to lead away from", fix="Give it with --against")
    models = InsideModels.open(args.model, args.stage, args.beside, chat=args.chat)
    models.fits.text, models.fits.folder = args.text, args.trained
    if args.html is not None:
        write_page(args, models)
    else:
        serve_page(args, models)
    return 0


def write_page(args: Any, models: InsideModels) -> None:
    """Writes the file and says how large it is; a live line says how far a training is.

    Raises:
        UserError: as `web.inside.file.write_file`.
    """
    with training_line(console(sys.stderr)) as progress:
        extras = Extras(
            trained=args.trained is not None,
            layer=args.layer,
            toward=args.toward,
            away=args.against if args.toward else None,
            strength=args.strength,
            progress=progress,
        )
        against = None if args.toward else args.against
        written = write_file(args.html, models, args.prompt, against=against, extras=extras)
    print(f"{args.html}  {size(written)}; opens in any browser, without a network")


@contextmanager
def training_line(out: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A live line in a terminal, and now and then a line elsewhere; gives what is to be told title, step and steps."""
    live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal else None
    shown = time.monotonic()

    def tell(title: str, step: int, steps: int) -> None:
        nonlocal shown
        if time.monotonic() - shown < (0.1 if live else SECONDS_BETWEEN_LINES):
            return
        shown = time.monotonic()
        line = Text(f"Training the {title}: step {step:,} of {steps:,}")
        if live is None:
            out.print(line)
        else:
            live.update(line, refresh=True)

    with live or nullcontext():
        yield tell


def serve_page(args: Any, models: InsideModels) -> None:
    """Serves the page until Ctrl-C; opens it in the browser where a person is at a terminal.

    Raises:
        UserError: the prompt has no such position or is not one for this model, or the port is taken.
    """
    selection: dict[str, Any] = {"token": models.subject(models.first, args.prompt).at(args.position)}
    if args.layer is not None:
        selection["layer"] = args.layer
    if args.toward is not None:
        selection |= {"toward": args.toward, "away": args.against, "strength": args.strength}
    settings = ServeSettings(port=args.port)
    listening = listen(settings)

    def started(url: str) -> None:
        address = f"{url}{PAGE}#{urlencode(selection)}"
        print(f"Page: {address}    Ctrl-C ends it.", flush=True)
        if sys.stdout.isatty() and not args.no_browser:
            import webbrowser

            webbrowser.open(address)

    serve(create_inside_app(models, args.prompt, settings), settings, listening, started)
    print("Stopped.", file=sys.stderr)
