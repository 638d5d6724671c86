"""The part of ``underhood eval`` that gives bits per byte on plain text, for any model."""

from __future__ import annotations

import json
import time
from pathlib import Path

from underhood.core.errors import UserError

DEFAULT_TEXT = "pydocs"
DEFAULT_BYTES = 65_536
"""Held-out bytes of the default text that are read where nothing else is said: about a minute for 135 M parameters."""


def measure_text(
    model: Path,
    text: str | None,
    *,
    text_field: str | None = None,
    stage: str | None = None,
    max_bytes: int | None = None,
    as_json: bool = False,
) -> int:
    """Prints the bits per byte of a model on a text.

    Args:
        model: whatever `underhood.load` opens.
        text: a file, a folder or a data set; the held-out part of the default corpus if None.
        text_field: field or column of the text's files that holds it.
        max_bytes: stops after the document that reaches this many bytes.

    Raises:
        UserError: a model or a text that can't be read.
    """
    from underhood.cli.model_loading import open_model
    from underhood.evals.perplexity import LossReport
    from underhood.evals.table import measurement
    from underhood.evals.text_loss import text_loss
    from underhood.ui.formatting import whole
    from underhood.ui.terminal import console, table

    name, texts = _documents(text, text_field, max_bytes)
    loaded = open_model(model, stage)
    start = time.perf_counter()
    report: LossReport = text_loss(loaded, texts)
    seconds = time.perf_counter() - start
    bits = measurement("bits per byte", report.interval(), unit="bits/byte", higher_is_better=False)
    if as_json:
        result = {"model": str(model), "stage": loaded.stage, "text": name, "documents": len(texts)}
        result |= {"bits_per_byte": report.bits_per_byte, "low": bits.low, "high": bits.high, "bytes": report.bytes}
        print(json.dumps(result | {"tokens": report.tokens, "perplexity": report.perplexity, "seconds": seconds}))
        return 0
    out = console()
    rows = [
        ("bits per byte", bits.text()),
        ("perplexity per token", f"{report.perplexity:.2f}"),
        ("bytes per token", f"{report.bytes / report.tokens:.2f}"),
    ]
    documents = "1 document" if len(texts) == 1 else f"{whole(len(texts))} documents"
    out.print(f"{name}: {documents}, {whole(report.bytes)} bytes, {whole(report.tokens)} tokens")
    out.print(table(("measured", "value (95 % interval)"), rows))
    return 0


def _documents(text: str | None, text_field: str | None, max_bytes: int | None) -> tuple[str, list[str]]:
    """The text's name and its documents."""
    from underhood.data.sources import load_corpus
    from underhood.data.split import split_documents

    if max_bytes is not None and max_bytes < 1:
        raise UserError("--max-bytes is out of range", expected="1 or more", got=str(max_bytes))
    corpus = load_corpus(text or DEFAULT_TEXT, text_field=text_field)
    if text is None:
        corpus = split_documents(corpus)[1]
        max_bytes = max_bytes or DEFAULT_BYTES
    texts: list[str] = []
    read = 0
    for document in corpus.documents:
        if max_bytes is not None and read >= max_bytes:
            break
        texts.append(document.text)
        read += document.bytes
    return corpus.name, texts
