"""The first two stages: documents into clean, split, tokenized shards, and the tokenizer that does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from underhood.core.protocols import Tokenizer
from underhood.data.clean import clean
from underhood.data.documents import Corpus, require_enough
from underhood.data.pydocs import pydocs_functions
from underhood.data.shards import TokenShards, write_shards
from underhood.data.sources import load_corpus
from underhood.data.split import split_documents, split_functions
from underhood.recipes.run import Run
from underhood.recipes.start_model import keep_start_model
from underhood.recipes.text_data import about_text
from underhood.recipes.training_data import about_functions, write_stage_data
from underhood.recipes.tuning_data import tuning_data
from underhood.retrieve.collect import corpus_passages
from underhood.retrieve.documentation import documentation_passages
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.text.bpe import train_bpe
from underhood.train.text_amount import fitting_vocabulary

ALWAYS_TRAINED = ("module builtins", "module os.path")
"""Documents of pydocs that a newcomer's first questions are about."""

PASSAGE = 240
"""Characters of a passage at most: a model of a few minutes copies short ones without losing its place."""

SMALLEST_CORPUS = 4_000
"""Bytes of text below which a build is refused: less can't fill a few contexts of training and held-out text."""


def prepare_data(run: Run) -> None:
    """Reads, cleans and splits the corpus, trains the tokenizer, writes ``data/train`` and ``data/held_out``.

    What is there already is kept; the note ``data.json`` is written last and marks the whole as done.
    """
    if run.note("data") is not None:
        return
    started = time.perf_counter()
    run.log.event("data", "start", data=run.spec.data)
    spec = run.spec
    corpus = load_corpus(spec.data, text_field=spec.text_field)
    train, held_out, facts = clean_and_split(corpus, share_held_out=spec.held_out, seed=spec.seed)
    run.log.event("data", "end", seconds=time.perf_counter() - started, **facts)
    started = time.perf_counter()
    start_model = keep_start_model(run) if spec.from_ is not None else None
    if start_model is not None or run.tokenizer_file.exists():
        tokenizer = run.tokenizer
    else:
        vocab_size = spec.vocab_size or fitting_vocabulary(train.bytes)
        run.log.event("tokenizer", "start", vocab_size=vocab_size)
        tokenizer = train_bpe((document.text for document in train.documents), vocab_size=vocab_size)
        tokenizer.save(run.tokenizer_file)
    tokenizer_seconds = time.perf_counter() - started
    for split, chosen in (("train", train), ("held_out", held_out)):
        shards = write_documents(run.shards(split), chosen, tokenizer, eot_id=run.end_id, digest=run.tokenizer_digest)
        facts[split] = {"documents": len(chosen), "bytes": chosen.bytes, "tokens": shards.tokens}
    per_token = facts["train"]["bytes"] / facts["train"]["tokens"]
    shown = next((d.text for d in held_out.documents if len(d.text) > 400), held_out.documents[0].text)[:600]
    facts["tokenizer"] = {
        "vocab_size": tokenizer.vocab_size,
        "merges": None if start_model else tokenizer.vocab_size - 256 - len(tokenizer.special),
        "bytes_per_token": per_token,
        "seconds": tokenizer_seconds,
        "sample": [[number, tokenizer.decode_bytes([number]).hex()] for number in tokenizer.encode(shown)],
    }
    index = make_index(spec.data, corpus)
    index.save(run.path / RUN_INDEX)
    facts["passages"] = len(index.passages)
    if spec.data == "pydocs":
        data = about_functions(train, held_out, index, seed=spec.seed)
    else:
        data = about_text(corpus, train, held_out, index, seed=spec.seed)
    if start_model is not None:
        assert run.template is not None
        functions = split_functions(pydocs_functions(), held_out)[0] if spec.data == "pydocs" else []
        data = tuning_data(data, functions, train, start_model, run.template, minutes=spec.minutes, seed=spec.seed)
    write_stage_data(run.path / "data", data)
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


def make_index(data: str, corpus: Corpus) -> PassageIndex:
    """The passages that the finished model answers from: of all documents as they were read, the held-out ones too."""
    if data == "pydocs":
        return PassageIndex.build(documentation_passages(), data=[data])
    return PassageIndex.build(corpus_passages(corpus.documents, max_characters=PASSAGE), data=[data])


def clean_and_split(corpus: Corpus, *, share_held_out: float, seed: int) -> tuple[Corpus, Corpus, dict[str, Any]]:
    """Training and held-out documents, and what there is to say about them."""
    cleaned, report = clean(corpus)
    require_enough(cleaned, SMALLEST_CORPUS)
    train, held_out = split_documents(cleaned, held_out=share_held_out, seed=seed, keep=ALWAYS_TRAINED)
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


def write_documents(folder: Path, corpus: Corpus, tokenizer: Tokenizer, *, eot_id: int, digest: str) -> TokenShards:
    """Writes the documents as token shards."""
    return write_shards(
        folder,
        tokenizer.encode_batch([document.text for document in corpus.documents]),
        eot_id=eot_id,
        tokenizer_digest=digest,
        byte_counts=[document.bytes for document in corpus.documents],
    )
