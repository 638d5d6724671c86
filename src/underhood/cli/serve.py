"""``underhood serve``: a model behind OpenAI's API, and the web page."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.cli.retrieval_options import RetrievalOptions, check_contradiction, nothing_to_quote

KEY = "UNDERHOOD_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, RetrievalOptions):
    """Serves models to programs, through OpenAI's API, and to people, as a web page.

    A run's stages are models of their own: requests name them NAME:STAGE, or
    simply by run or stage where that is clear. Without --host only this machine
    can reach the server; Ctrl-C lets answers finish and ends it.
    """

    model: Positional[tuple[str, ...]] = ()
    """Runs, Hugging Face folders or hf:OWNER/NAME; the newest run here if left out."""

    port: int = 8000
    """Where to listen; 0 takes any free port."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for every one of this machine. Needs a key."""

    api_key: str | None = None
    """What every request must bring. UNDERHOOD_API_KEY works too, and shows in no list of processes."""

    stage: str | None = None
    """Serves only this one of a run's models."""

    quantize: Literal["int8", "int4"] | None = None
    """Holds the weights in 8 or 4 bits: faster, and a little less exact."""

    quantize_cache: bool = False
    """Keeps what has been read in 8 bits: room for nearly four times as much, and a little less exact."""

    speculative: str | None = None
    """Speculative decoding, which gives the same answers sooner: ngram drafts what followed the last tokens before; a
    smaller model with the same tokenizer, e.g. another run, drafts token by token."""

    cache_mb: int | None = None
    """Memory for what has been read, in MiB per model; the models share what the machine can spare if left out."""

    max_sequences: int = 32
    """How many sequences run at the same time; the others wait."""

    max_waiting: int = 1024
    """How many requests may wait; more are told to come back later."""

    feedback: Path | None = None
    """The file that keeps feedback; feedback.db in the first run's folder, or, without a run, in $UNDERHOOD_HOME or
    underhood in $XDG_DATA_HOME or ~/.local/share."""

    runs: Path | None = None
    """Folder whose runs the page lists; that of the first run if left out."""

    allow_host: tuple[str, ...] = ()
    """Further names by which the server may be addressed."""

    allow_origin: tuple[str, ...] = ()
    """Web pages of other origins that may use it, e.g. https://example.org."""


def run(args: Args) -> int:
    check_contradiction(args)
    if args.no_retrieve and args.quote:
        raise nothing_to_quote()
    from underhood.cli.newest_run import run_or_newest
    from underhood.core.user_folder import user_folder
    from underhood.infer.drafts import DRAFT_TOKENS
    from underhood.infer.engine_spec import EngineSpec
    from underhood.infer.fetch import fetch
    from underhood.web.app import create_app
    from underhood.web.documents import RetrievalSettings
    from underhood.web.registry import ModelRegistry
    from underhood.web.server import listen, serve
    from underhood.web.settings import ServeSettings

    models = args.model or (str(run_or_newest(None)),)
    first = fetch(models[0])
    own = (first / "checkpoints").is_dir()
    settings = ServeSettings(
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get(KEY) or None,
        allow_hosts=args.allow_host,
        allow_origins=args.allow_origin,
        feedback=args.feedback or (first if own else user_folder()) / "feedback.db",
        runs=args.runs or (first.resolve().parent if own else None),
    )
    listening = listen(settings)  # before the models are read: a taken port should not cost a minute
    spec = EngineSpec(
        max_sequences=args.max_sequences,
        max_waiting=args.max_waiting,
        max_batched_tokens=max(EngineSpec.max_batched_tokens, 2 * args.max_sequences),
        cache_bytes=None if args.cache_mb is None else args.cache_mb << 20,
        quantize_cache=args.quantize_cache,
        draft_tokens=DRAFT_TOKENS if args.speculative else 0,
    )
    registry = ModelRegistry.open(
        models,
        stage=args.stage,
        quantize=args.quantize,
        spec=spec,
        draft=None if args.speculative == "ngram" else args.speculative,
        retrieval=RetrievalSettings(index=args.retrieve, off=args.no_retrieve, quote=args.quote),
    )

    def started(url: str) -> None:
        from underhood.cli.source_lines import corpus_line

        for model in registry.served:
            also = ", ".join(registry.aliases(model))
            print(f"{model.id}" + (f"  (also {also})" if also else ""))
            if model.loaded.note:
                print(f"  {model.loaded.note}")
        for index in registry.default_indexes():
            print(f"Answers come from {corpus_line(index)}.")
        print(f"\nPage: {url}    API: {url}/v1    Ctrl-C ends it.", flush=True)
        if settings.api_key is not None:
            print("The page asks for the API key.", flush=True)

    serve(create_app(registry, settings), settings, listening, started)
    print("Stopped.", file=sys.stderr)
    return 0
