from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from underhood.text.merges import Pair, apply_merges, learn_merges, merge_pair
from underhood.text.split import PATTERNS, split
from underhood.text.vocabulary import BYTE_TO_CHARACTER, unspell

WORDS = st.dictionaries(
    st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), st.integers(1, 5), min_size=1, max_size=12
)


def recounting(words: dict[tuple[int, ...], int], merges: int, min_frequency: int) -> list[Pair]:
    """Algorithm 1 of Sennrich et al. as printed: count every pair anew for each merge."""
    spelt = [(list(word), number) for word, number in words.items()]
    learnt: list[Pair] = []
    while len(learnt) < merges:
        counts: Counter[Pair] = Counter()
        for symbols, number in spelt:
            for left, right in itertools.pairwise(symbols):
                counts[left, right] += number
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        spelt = [(merge_pair(symbols, best, 256 + len(learnt)), number) for symbols, number in spelt]
        learnt.append(best)
    return learnt


@given(WORDS, st.integers(0, 30), st.integers(1, 4))
def test_learn_merges_matches_recounting(words: dict[tuple[int, ...], int], merges: int, least: int):
    assert learn_merges(words, merges, min_frequency=least) == recounting(words, merges, least)


@given(WORDS, st.randoms())
def test_learn_merges_ignores_the_order_of_words(words, random):
    shuffled = list(words.items())
    random.shuffle(shuffled)
    assert learn_merges(dict(shuffled), 20) == learn_merges(words, 20)


def test_learn_merges_finds_the_papers_example():
    # Sennrich et al. 2016, figure 1: low ×5, lowest ×2, newer ×6, wider ×3, with an end-of-word sign (here: .)
    words = {"low.": 5, "lowest.": 2, "newer.": 6, "wider.": 3}
    learnt = learn_merges({tuple(word.encode()): number for word, number in words.items()}, 4)
    text: dict[int, str] = {byte: chr(byte) for byte in range(128)}
    for number, (left, right) in enumerate(learnt):
        text[256 + number] = text[left] + text[right]
    # Its toy run learns r·, lo, low, er·; the counts of (e, r) and (r, ·) tie at 9 and our rule takes e first.
    assert [text[256 + number] for number in range(4)] == ["er", "er.", "lo", "low"]


def test_learn_merges_matches_hugging_face_trainer():
    import pydoc_data.topics

    texts = [*list(pydoc_data.topics.topics.values())[:25], "naïve 北京 北京 ... ===== aaaaaaa aaaaa 12 12"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS["qwen2"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + 600, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    theirs = [unspell(token) for token, _ in by_id]

    symbol = {byte: index for index, byte in enumerate(BYTE_TO_CHARACTER)}
    counts = Counter(piece for text in texts for piece in split(text))
    words = {tuple(symbol[byte] for byte in piece.encode()): number for piece, number in counts.items()}
    ours = [bytes([byte]) for byte in BYTE_TO_CHARACTER]
    for left, right in learn_merges(words, 600):
        ours.append(ours[left] + ours[right])
    assert ours == theirs


@given(st.lists(st.integers(0, 2), max_size=12), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_merge_pair_leaves_no_pair_and_undoes(symbols: list[int], pair: Pair):
    merged = merge_pair(symbols, pair, 9)
    assert [item for symbol in merged for item in (pair if symbol == 9 else (symbol,))] == symbols
    assert pair not in itertools.pairwise(merged)


def test_merge_pair_takes_the_leftmost_of_overlapping_pairs():
    assert merge_pair([1, 1, 1], (1, 1), 2) == [2, 1]


def test_apply_merges_goes_by_order_learnt_and_not_by_length():
    ranks = {(1, 2): (0, 4), (2, 3): (1, 5), (4, 3): (2, 6)}
    assert apply_merges([1, 2, 3], ranks) == [6]
    later = {(1, 2): (1, 4), (2, 3): (0, 5)}
    assert apply_merges([1, 2, 3], later) == [1, 5]


def test_learn_merges_reports_progress_to_the_end():
    seen: list[tuple[int, int]] = []
    words = {tuple(text.encode()): 3 for text in ("abcdefgh", "bcdefghi")}
    learn_merges(words, 5, progress=lambda done, wanted: seen.append((done, wanted)))
    assert seen[-1] == (5, 5)
