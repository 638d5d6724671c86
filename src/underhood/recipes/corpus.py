"""The first two stages: documents into clean, split, tokenized shards, and the tokenizer that does it."""

from __future__ import annotations

import time
from typing import Any

from underhood.core.files import sha256_of
from underhood.core.protocols import Tokenizer
from underhood.data.clean import clean
from underhood.data.documents import Corpus, require_enough
from underhood.data.shards import TokenShards, write_shards
from underhood.data.sources import load_corpus
from underhood.data.split import split_documents
from underhood.recipes.lessons import make_lessons, write_lessons
from underhood.recipes.run import Run
from underhood.text.bpe import BytePairTokenizer, train_bpe

END = "<|endoftext|>"
ALWAYS_TRAINED = ("module builtins", "module os.path")
"""Documents of pydocs that a newcomer's first questions are about."""

SMALLEST_CORPUS = 20_000
"""Bytes of text below which a build is refused: less can't fill a few contexts of training and held-out text."""


def prepare_data(run: Run) -> None:
    """Reads, cleans and splits the corpus, trains the tokenizer, writes ``data/train`` and ``data/held_out``.

    What is there already is kept; the note ``data.json`` is written last and marks the whole as done.
    """
    if run.note("data") is not None:
        return
    started = time.perf_counter()
    run.log.event("data", "start", data=run.spec.data)
    train, held_out, facts = read_documents(run)
    run.log.event("data", "end", seconds=time.perf_counter() - started, **facts)
    started = time.perf_counter()
    tokenizer = train_tokenizer(run, train)
    tokenizer_seconds = time.perf_counter() - started
    for part, corpus in (("train", train), ("held_out", held_out)):
        shards = write_documents(run, part, corpus, tokenizer)
        facts[part] = {"documents": len(corpus), "bytes": corpus.bytes, "tokens": shards.tokens}
    per_token = facts["train"]["bytes"] / facts["train"]["tokens"]
    shown = next((d.text for d in held_out.documents if len(d.text) > 400), held_out.documents[0].text)[:600]
    facts["tokenizer"] = {
        "vocab_size": tokenizer.vocab_size,
        "merges": tokenizer.vocab_size - 256 - len(tokenizer.special),
        "bytes_per_token": per_token,
        "seconds": tokenizer_seconds,
        "sample": [[number, piece.hex()] for number, piece in tokenizer.pieces(shown)],
    }
    write_lessons(run.path / "data", make_lessons(run.spec.data, train, held_out, seed=run.spec.seed))
    facts["held_out_names"] = [document.name for document in held_out.documents]
    run.log.event(
        "tokenizer",
        "end",
        seconds=tokenizer_seconds,
        vocab_size=tokenizer.vocab_size,
        bytes_per_token=per_token,
        train_tokens=facts["train"]["tokens"],
        held_out_tokens=facts["held_out"]["tokens"],
    )
    run.write_note("data", facts)


def read_documents(run: Run) -> tuple[Corpus, Corpus, dict[str, Any]]:
    """Training and held-out documents, and what there is to say about them."""
    corpus = load_corpus(run.spec.data, text_field=run.spec.text_field)
    cleaned, report = clean(corpus)
    require_enough(cleaned, SMALLEST_CORPUS)
    train, held_out = split_documents(cleaned, held_out=run.spec.held_out, seed=run.spec.seed, keep=ALWAYS_TRAINED)
    facts: dict[str, Any] = {
        "name": corpus.name,
        "digest": corpus.digest,
        "facts": dict(corpus.facts),
        "documents": len(corpus),
        "bytes": corpus.bytes,
        "kept": len(cleaned),
        "dropped": report.reasons,
        "dropped_names": [[item.name, item.reason] for item in report.dropped[:50]],
    }
    return train, held_out, facts


def train_tokenizer(run: Run, train: Corpus) -> BytePairTokenizer:
    """Learns the merges on the training documents and saves ``tokenizer.json``; an existing one is kept."""
    if run.tokenizer_file.exists():
        return BytePairTokenizer.load(run.tokenizer_file)
    run.log.event("tokenizer", "start", vocab_size=run.spec.vocab_size)
    tokenizer = train_bpe((document.text for document in train.documents), vocab_size=run.spec.vocab_size)
    tokenizer.save(run.tokenizer_file)
    return tokenizer


def write_documents(run: Run, part: str, corpus: Corpus, tokenizer: Tokenizer) -> TokenShards:
    """Writes a part's token shards."""
    return write_shards(
        run.shards(part),
        tokenizer.encode_batch([document.text for document in corpus.documents]),
        eot_id=tokenizer.special[END],
        tokenizer_digest=tokenizer_digest(run),
        byte_counts=[document.bytes for document in corpus.documents],
    )


def tokenizer_digest(run: Run) -> str:
    """Identifies the run's tokenizer: shards and checkpoints name it, so that they are never read with another."""
    return sha256_of(run.tokenizer_file)


def open_shards(run: Run, part: str) -> TokenShards:
    """The shards of a part, their checksums verified."""
    return TokenShards.open(run.shards(part), tokenizer_digest=tokenizer_digest(run))
