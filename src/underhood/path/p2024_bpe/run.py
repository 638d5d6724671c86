"""Byte-pair encoding: merges by counting, what they save, and what they do to spaces, numbers and names."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import regex
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from underhood.core.figures import Series, Texts
from underhood.core.trial import Trial
from underhood.data.pydocs import pydocs_corpus
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.text.merges import Pair, apply_merges, learn_merges, merge_pair
from underhood.text.split import PATTERNS, split

EXAMPLE, ITS_IDS = "aaabdaaabac", [258, 100, 258, 97, 99]
VOCABULARY = 1024
CROSSING = regex.compile(r"\p{L}[^\p{L}]|[^\s\p{L}]\s+\S")
"""A token that goes on from the end of a word, or over a space behind punctuation."""
OF_GPT2 = ("gpt2", "magikarp", "space", "digits")


def run(trial: Trial) -> None:
    texts = [document.text for document in pydocs_corpus().documents]
    if trial.wants("example"):
        words = {tuple(EXAMPLE.encode()): 1}
        learnt = learn_merges(words, 0 if trial.ablated("merges") else 3)
        trial.measure("example", differing(apply_merges([*EXAMPLE.encode()], ranks(learnt)), ITS_IDS))
    for seed in trial.each_seed():
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(texts))
        known = [texts[i] for i in order[20 : trial.by_scale(smoke=50, report=320)]]
        held_out = "".join(texts[i] for i in order[:20])
        if trial.wants("recount"):
            sample = Counter(split(known[0][:20_000]))
            words = {tuple(piece.encode()): number for piece, number in sample.items()}
            merges = trial.by_scale(smoke=60, report=300)
            trial.measure("recount", differing(learn_merges(words, merges), recounting(words, merges)))
        if trial.wants("round"):
            trial.measure("round", lost(trial, known, generator))
        if trial.wants("crossing"):
            trial.measure("crossing", crossing("".join(known)[:20_000], whole=trial.ablated("split")))
        if trial.wants("half"):
            size = 256 if trial.ablated("merges") else VOCABULARY
            tokenizer = train_bpe(known, vocab_size=size, special=())
            trial.measure("half", len(tokenizer.encode(held_out)) / len(held_out.encode()))
            if seed == trial.seeds[0] and not trial.is_ablation:
                show(trial, tokenizer, held_out)
    of_gpt2(trial)


def recounting(words: dict[tuple[int, ...], int], merges: int) -> list[Pair]:
    """Algorithm 1 of Sennrich et al. 2016: count all pairs, merge the most frequent, and again."""
    spellings, learnt = {word: list(word) for word in words}, []
    for new in range(256, 256 + merges):
        counts: Counter[Pair] = Counter()
        for word, symbols in spellings.items():
            for pair in pairwise(symbols):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair))  # of equals the smaller numbers
        if counts[best] < 2:
            break
        learnt.append(best)
        spellings = {word: merge_pair(symbols, best, new) for word, symbols in spellings.items()}
    return learnt


def ranks(learnt: list[Pair]) -> dict[Pair, tuple[int, int]]:
    return {pair: (number, 256 + number) for number, pair in enumerate(learnt)}


def differing(ours: list, theirs: list) -> int:
    return sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))


def lost(trial: Trial, known: list[str], generator: np.random.Generator) -> int:
    """How many of 200 strings of random bytes do not come back."""
    data = "".join(known)[:20_000].encode()
    words = {tuple(piece.encode()): 1 for piece in split(data.decode(errors="ignore"))}
    learnt = learn_merges(words, 100)
    spelled = {byte: bytes([byte]) for byte in (set(data) if trial.ablated("bytes") else range(256))}
    for number, (left, right) in enumerate(learnt):
        spelled[256 + number] = spelled[left] + spelled[right]
    strings = [
        generator.integers(0, 256, int(generator.integers(1, 60))).astype(np.uint8).tobytes() for _ in range(200)
    ]
    encoded = [apply_merges([*string], ranks(learnt)) for string in strings]
    decoded = [b"".join(spelled.get(id, b"?") for id in ids) for ids in encoded]
    return sum(a != b for a, b in zip(strings, decoded, strict=True))


def crossing(text: str, *, whole: bool) -> int:
    """How many learnt tokens go on from the end of a word."""
    pieces = Counter([text[i : i + 1000] for i in range(0, len(text), 1000)] if whole else split(text, "gpt2"))
    learnt = learn_merges({tuple(piece.encode()): number for piece, number in pieces.items()}, 200)
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in learnt:
        tokens.append(tokens[left] + tokens[right])
    return sum(bool(CROSSING.search(token.decode(errors="ignore"))) for token in tokens[256:])


def of_gpt2(trial: Trial) -> None:
    """What the published vocabulary does."""
    files = [trial.file(f"tokenizers/gpt2/{name}") for name in ("encoder.json", "vocab.bpe")]
    if files[0] is None or files[1] is None:
        for key in OF_GPT2:
            trial.skip_claim(key, "needs GPT-2's vocabulary: tokenizers/gpt2 below --data")
        return
    if trial.is_ablation:
        return
    gpt2 = BytePairTokenizer.from_gpt2_files(*files)  # type: ignore[arg-type]
    trial.measure("gpt2", gpt2.vocab_size)
    [*magikarp] = gpt2.encode(" SolidGoldMagikarp")
    trial.measure("magikarp", magikarp[0] if len(magikarp) == 1 else -1)
    text = "the cat sat on a mat and then it went home to eat fish with its friends in the sun "
    sentences = [text[: space.start()] for space in regex.finditer(" ", text)][1:]
    cut = [sentence[: sentence.rindex(" ") + 1] for sentence in sentences]
    whole = [gpt2.encode(sentence) for sentence in sentences]
    apart = [gpt2.encode(text) != ids[: len(gpt2.encode(text))] for text, ids in zip(cut, whole, strict=True)]
    trial.measure("space", float(np.mean(apart)))
    trial.measure("digits", float(np.mean([len(gpt2.encode(str(number))) > 1 for number in range(1000, 10_000)])))
    theirs = tiktoken.Encoding(
        "gpt2",
        pat_str=PATTERNS["gpt2"],
        mergeable_ranks=data_gym_to_mergeable_bpe_ranks(str(files[1]), str(files[0])),
        special_tokens={},
    )
    texts = [*(document.text for document in pydocs_corpus().documents[:20]), "hello123!!!? (안녕하세요!) 😉"]
    agree = sum(gpt2.encode_plainly(text) == theirs.encode_ordinary(text) for text in texts)
    trial.oracle("tiktoken with the same files", agree == len(texts), f"{agree} of {len(texts)} texts")
    shown = (
        "Egg. I have an Egg. egg. EGG.",
        "127 + 677 = 804, 1275 + 6773 = 8041",
        "hello world, hello ",
        " SolidGoldMagikarp",
    )
    cut_up = tuple((text, "|".join(gpt2.decode([id]) for id in gpt2.encode(text))) for text in shown)
    trial.figure(Texts(title="How GPT-2 cuts texts", texts=cut_up))


def show(trial: Trial, tokenizer: BytePairTokenizer, held_out: str) -> None:
    ids, merges = tokenizer.vocabulary.ids, tokenizer.vocabulary.merges
    known = [(ids[left], ids[right]) for left, right in merges]
    pieces = Counter(tuple(ids[bytes([byte])] for byte in piece.encode()) for piece in split(held_out))
    sizes = tuple(range(0, len(known) + 1, 64))
    tables = [ranks(known[:size]) for size in sizes]
    tokens = [sum(len(apply_merges([*piece], table)) * n for piece, n in pieces.items()) for table in tables]
    trial.plot(
        title="More merges, fewer tokens",
        x="merges",
        y="bytes per token of unseen text",
        series=[Series("Python's documentation", tuple(map(float, sizes)), tuple(tokens[0] / n for n in tokens))],
    )
    spelled = [repr((left + right).decode(errors="replace")) for left, right in merges[:12]]
    first = [(str(256 + number), token) for number, token in enumerate(spelled)]
    trial.table(title="The first merges", head=("id", "token"), rows=first)
