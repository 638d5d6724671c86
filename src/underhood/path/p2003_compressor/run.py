"""MacKay 2003: a language model is a compressor, and a compressor a language model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.arithmetic import TOTAL_LIMIT, ArithmeticDecoder, ArithmeticEncoder
from underhood.data.documents import Corpus
from underhood.data.pydocs import pydocs_corpus
from underhood.data.split import split_documents
from underhood.evals.compression import compressors_bytes
from underhood.infer import token_streams
from underhood.infer.token_code import Spelling
from underhood.models.base import parameter_count
from underhood.models.byte_ngram import ByteNGram
from underhood.models.decoder import qwen3_shaped
from underhood.text.bpe import train_bpe
from underhood.train.small_lm import train_small

Bits = NDArray[np.float64]


def run(trial: Trial) -> None:
    topics = "\n".join(document.text for document in pydocs_corpus().documents if document.kind == "topic").encode()
    text = topics[: trial.by_scale(smoke=30_000, report=len(topics))]
    others = compressors_bytes(text)
    measured: dict[int, Bits] = {}
    for order in trial.each(trial.by_scale(smoke=(5,), report=tuple(range(7))), "order"):
        code, measured[order] = write(trial, text, order)
        trial.measure("excess", 8 * len(code) - measured[order].sum())
        if order == 5:
            trial.measure("gzip", len(code) / others["gzip"])
            trial.measure("copying", len(code) / min(others["bz2"], others["xz"]))
            decoded = read(trial, code, len(text), 4 if trial.ablated("agreement") else order)
            trial.measure("lossless", sum(a != b for a, b in zip(text, decoded, strict=True)))
    trial.measure("table", 48.0 + 100 * 140 / 1)
    if trial.wants("best_order"):
        trial.measure("best_order", min(measured, key=lambda order: measured[order].sum()))
    if trial.wants("network", "adjusted"):
        network(trial, *split_documents(pydocs_corpus(), held_out=0.1, seed=0))
    ours = {f"n-gram, {order} bytes back": bits.sum() / 8 for order, bits in measured.items()}
    table(trial, "Python's language reference", text, others | ours, 0)
    show(trial, measured)


def write(trial: Trial, text: bytes, order: int) -> tuple[bytes, Bits]:
    """The code of a text, and the bits that each byte's probability asks for."""
    model, coder, widths = ByteNGram(order), ArithmeticEncoder(), []
    for position, byte in enumerate(text):
        start, end = (byte << 16, byte + 1 << 16) if trial.ablated("model") else model.interval(byte)
        coder.encode(start, end, TOTAL_LIMIT)
        widths.append(end - start)
        model.learn(byte)
        trial.progress(position / len(text), f"order {order}")
    return coder.finish(), -np.log2(np.array(widths) / TOTAL_LIMIT)


def read(trial: Trial, code: bytes, length: int, order: int) -> bytes:
    """What somebody with the model of that order makes of a code; zeros follow it, lest it end too soon."""
    model, coder, decoded = ByteNGram(order), ArithmeticDecoder(code.ljust(4 * length, b"\0")), bytearray()
    while len(decoded) < length:
        byte, start, end = model.find(coder.target(TOTAL_LIMIT))
        if trial.ablated("model"):
            byte = coder.target(TOTAL_LIMIT) >> 16
            start, end = byte << 16, byte + 1 << 16
        coder.decode(start, end, TOTAL_LIMIT)
        model.learn(byte)
        decoded.append(byte)
    return bytes(decoded)


def network(trial: Trial, train: Corpus, held_out: Corpus) -> None:
    """Trains a small decoder on some documents and sends the others through it, there and back."""
    texts = [document.text for document in train.documents]
    tokenizer = train_bpe(texts, vocab_size=2048)
    spec = qwen3_shaped(vocab_size=2048, context_length=192, d_model=128, layers=3, heads=2)
    model = train_small(texts, tokenizer, spec, steps=450, progress=lambda share: trial.progress(share / 2, "training"))
    data = "\n".join(document.text for document in held_out.documents).encode()
    spelling, end = Spelling(tokenizer, 2048), tokenizer.special["<|endoftext|>"]
    ids = spelling.encode(data)
    shape = token_streams.Shape.of(model, len(ids))
    trial.progress(0.5, "writing and reading")
    code = token_streams.write(model, spelling, end, ids, shape)
    trial.measure("lossless", int(spelling.decode(token_streams.read(model, spelling, end, code, shape)) != data))
    others, weights = compressors_bytes(data), 2 * parameter_count(model)
    trial.measure("network", len(code) / others["xz"])
    trial.measure("adjusted", (len(code) + weights) / len(data))
    table(trial, "Documents that the network never saw", data, others | {"network": len(code)}, weights)


def table(trial: Trial, title: str, data: bytes, sizes: Mapping[str, float], weights: int) -> None:
    extra = {"network": weights}
    ordered = sorted(sizes.items(), key=lambda item: item[1])
    rows = tuple(
        (name, round(size), round(8 * size / len(data), 3), f"{100 * (size + extra.get(name, 0)) / len(data):,.1f} %")
        for name, size in ordered
    )
    note = f"{len(data):,} bytes. Adjusted: with the model's own bytes, as a share of the text's."
    trial.table(title=title, head=("", "bytes", "bits per byte", "adjusted"), rows=rows, note=note)


def show(trial: Trial, measured: dict[int, Bits]) -> None:
    if len(measured) > 1:
        each = Series("n-gram", tuple(map(float, measured)), tuple(float(bits.mean()) for bits in measured.values()))
        trial.plot(title="How far back to look", x="bytes of context", y="bits per byte", series=(each,))
    lines = []
    for order in {0, 2, 5} & measured.keys():
        parts = np.array_split(measured[order], 24)
        read = np.cumsum([len(chunk) / 1000 for chunk in parts]).round(1).tolist()
        lines.append(Series(f"{order} bytes back", tuple(read), tuple(float(chunk.mean()) for chunk in parts)))
    title = "What a byte costs while the n-gram learns"
    trial.plot(title=title, x="kB read", y="bits per byte", series=lines)
