"""Our byte-level BPE beside its peers: training against Hugging Face's trainer, encoding against tiktoken and theirs.

Both trainers learn the same vocabulary from the same documents, and all encoders produce the same ids; the benchmark
stops if they do not, for then the times would compare different work.

    python benchmarks/bench_tokenizer.py [--vocab-size 4096] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import tiktoken
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from harness import Timing, compare, machine, print_json
from underhood.data.pydocs import pydocs_corpus
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.text.split import PATTERNS


def train_theirs(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PATTERNS["qwen2"]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    texts = [document.text for document in pydocs_corpus().documents]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    size = options.vocab_size
    print(f"pydocs: {len(texts)} documents, {megabytes:.3f} MB; vocabulary {size}; {os.cpu_count()} CPUs\n")

    ours = train_bpe(texts, vocab_size=size)
    merges = size - 256 - len(ours.special)
    same_merges = len(ours.vocabulary.merges) == merges and merge_list(ours, merges) == merge_list(
        train_theirs(texts, size - len(ours.special)), merges
    )
    print(f"the two trainers learn the same {merges} merges in the same order: {same_merges}")
    if not same_merges:
        raise SystemExit("they do not: nothing to compare")
    training = compare(
        {
            "ours (Python)": lambda: train_bpe(texts, vocab_size=size),
            "tokenizers (Rust)": lambda: train_theirs(texts, size - len(ours.special)),
        },
        options.repeats,
    )
    for name, timing in training.items():
        print(f"  train   {name:22} {timing}")

    peer_tiktoken = tiktoken.Encoding(
        "peer",
        pat_str=PATTERNS["qwen2"],
        mergeable_ranks=dict(ours.vocabulary.ids),
        special_tokens=dict(ours.special),
    )
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder) / "tokenizer.json")
        peer_hf = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    # Documents that spell a special token would be encoded differently by Hugging Face, on purpose.
    plain = [text for text in texts if not any(name in text for name in ours.special)]
    ids = ours.encode_batch(plain)
    tokens = sum(map(len, ids))
    sample = plain[:: max(1, len(plain) // 20)]
    sample_megabytes = sum(len(text.encode()) for text in sample) / 1e6
    assert ids == [peer_tiktoken.encode_ordinary(text) for text in plain]
    assert ids == [encoding.ids for encoding in peer_hf.encode_batch(plain, add_special_tokens=False)]
    print(f"\nall encoders give the same {tokens:,} tokens: {megabytes * 1e6 / tokens:.3f} bytes per token")
    encoding = compare(
        {
            "ours, one thread": lambda: [ours.encode(text) for text in plain],
            "tiktoken, one thread": lambda: [peer_tiktoken.encode_ordinary(text) for text in plain],
            "ours, encode_batch": lambda: ours.encode_batch(plain),
            "tiktoken, batch": lambda: peer_tiktoken.encode_ordinary_batch(plain, num_threads=os.cpu_count() or 1),
            "tokenizers, batch": lambda: peer_hf.encode_batch_fast(plain, add_special_tokens=False),
        },
        options.repeats,
    )
    for name, timing in encoding.items():
        print(f"  encode  {name:22} {megabytes / timing.median:6.2f} MB/s  {timing}")
    plainly = compare({"ours, plain Python": lambda: [ours.encode_plainly(text) for text in sample]}, 3)
    for name, timing in plainly.items():
        print(f"  encode  {name:22} {sample_megabytes / timing.median:6.2f} MB/s  {timing} (sample)")

    def ratio(times: dict[str, Timing], us: str, peer: str) -> float:
        return round(times[us].median / times[peer].median, 3)

    print()
    print_json(
        "tokenizer",
        {
            "train": {name: timing.as_json() for name, timing in training.items()},
            "train_time_over_tokenizers": ratio(training, "ours (Python)", "tokenizers (Rust)"),
            "same_merges_as_tokenizers": same_merges,
            "bytes_per_token": round(megabytes * 1e6 / tokens, 4),
            "encode": {
                name: timing.as_json() | {"mb_per_s": round(megabytes / timing.median, 2)}
                for name, timing in encoding.items()
            },
            "encode_time_over_tiktoken": ratio(encoding, "ours, one thread", "tiktoken, one thread"),
            "batch_time_over_tokenizers": ratio(encoding, "ours, encode_batch", "tokenizers, batch"),
            "plain_mb_per_s": round(sample_megabytes / plainly["ours, plain Python"].median, 3),
        },
        megabytes=round(megabytes, 3),
        vocab_size=size,
        **machine("tiktoken", "tokenizers", "regex"),
    )


def merge_list(tokenizer: BytePairTokenizer | tokenizers.Tokenizer, count: int) -> list[str]:
    """The tokens that the merges make, in order, in the visible alphabet."""
    if isinstance(tokenizer, BytePairTokenizer):
        from underhood.text.vocabulary import spell

        return [spell(left + right) for left, right in tokenizer.vocabulary.merges[:count]]
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [token for token, _ in tokens[256 : 256 + count]]


if __name__ == "__main__":
    main()
