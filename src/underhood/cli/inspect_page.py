"""The page of ``underhood inspect``: served on this machine, or written into one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from underhood.ui.formatting import size
from underhood.web.inside.file import write_file
from underhood.web.inside.routes import PAGE, create_inside_app
from underhood.web.inside.subjects import InsideModels
from underhood.web.server import listen, serve
from underhood.web.settings import ServeSettings


def show_page(args: Any) -> int:
    """Writes or serves the page of `cli.inspect.Args`."""
    models = InsideModels.open(args.model, args.stage, args.beside, chat=args.chat)
    if args.html is not None:
        write_page(args.html, models, args.prompt, args.against)
    else:
        serve_page(
            models, args.prompt, position=args.position, layer=args.layer, port=args.port, browser=not args.no_browser
        )
    return 0


def write_page(path: Path, models: InsideModels, prompt: str, against: str | None) -> None:
    """Writes the file and says how large it is."""
    written = write_file(path, models, prompt, against=against)
    print(f"{path}  {size(written)}; opens in any browser, without a network")


def serve_page(
    models: InsideModels, prompt: str, *, position: int, layer: int | None, port: int, browser: bool
) -> None:
    """Serves the page until Ctrl-C; opens it in the browser where a person is at a terminal.

    Raises:
        UserError: the prompt has no such position or is not one for this model, or the port is taken.
    """
    token = models.subject(models.first, prompt).at(position)
    settings = ServeSettings(port=port)
    listening = listen(settings)

    def started(url: str) -> None:
        address = f"{url}{PAGE}#{urlencode({'token': token} | ({} if layer is None else {'layer': layer}))}"
        print(f"Page: {address}    Ctrl-C ends it.", flush=True)
        if browser and sys.stdout.isatty():
            import webbrowser

            webbrowser.open(address)

    serve(create_inside_app(models, prompt, settings), settings, listening, started)
    print("Stopped.", file=sys.stderr)
