"""The split: by document, by bytes, by name alone."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.errors import UserError
from underhood.data.documents import Corpus, Document
from underhood.data.pydocs import DocumentedFunction, pydocs_functions
from underhood.data.sources import load_corpus
from underhood.data.split import contaminated, split_documents, split_functions


def corpus_of(sizes, prefix="d"):
    return Corpus(tuple(Document("x" * size, f"{prefix}{n}", "txt") for n, size in enumerate(sizes)), "test")


def names(corpus):
    return {document.name for document in corpus.documents}


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=60), st.integers(0, 3), st.sampled_from([0.05, 0.1, 0.3]))
def test_split_loses_nothing_and_leaves_neither_side_empty(sizes, seed, share):
    corpus = corpus_of(sizes)
    train, held_out = split_documents(corpus, held_out=share, seed=seed)
    assert names(train) | names(held_out) == names(corpus)
    assert not names(train) & names(held_out)
    assert len(train) >= 1
    assert len(held_out) >= 1


def test_share_is_counted_in_bytes():
    rng = random.Random(0)
    corpus = corpus_of([rng.randint(10, 4000) for _ in range(500)])
    for seed in range(5):
        _, held_out = split_documents(corpus, held_out=0.1, seed=seed)
        assert 0.1 <= held_out.bytes / corpus.bytes <= 0.15


def test_split_depends_on_names_and_seed_only():
    corpus = corpus_of([100] * 200)
    other_order = Corpus(tuple(reversed(corpus.documents)), "test")
    assert names(split_documents(corpus, seed=1)[1]) == names(split_documents(other_order, seed=1)[1])
    assert names(split_documents(corpus, seed=1)[1]) != names(split_documents(corpus, seed=2)[1])


def test_adding_documents_moves_few_others():
    """An ordinary shuffled split would move about 18 % of the documents (2 · 0.1 · 0.9) across."""
    corpus = corpus_of([100] * 1000)
    more = corpus.with_documents([*corpus.documents, *corpus_of([100] * 50, "new").documents])
    before, after = names(split_documents(corpus)[1]), names(split_documents(more)[1])
    moved = (before ^ after) & names(corpus)
    assert len(moved) <= 15


def test_kept_documents_stay_in_training():
    corpus = corpus_of([100] * 50)
    chosen = sorted(names(split_documents(corpus)[1]))[0]
    assert chosen in names(split_documents(corpus, keep={chosen})[0])


def test_one_document_cannot_be_split():
    with pytest.raises(UserError, match="at least 2"):
        split_documents(corpus_of([100]))


def test_functions_follow_their_module():
    corpus = load_corpus("pydocs")
    train, held_out = split_documents(corpus, seed=3)
    seen, unseen = split_functions(pydocs_functions(), held_out)
    assert len(seen) + len(unseen) == len(pydocs_functions())
    assert {f.module for f in seen} <= names(train)
    assert {f.module for f in unseen} <= names(held_out)
    leaked = contaminated(unseen, train)
    assert 0 < len(leaked) < len(unseen) / 3


def test_contaminated_finds_word_for_word_copies_only():
    functions = [
        DocumentedFunction("a.f", "module a", "a", (), "", "Return the first item of the list."),
        DocumentedFunction("a.g", "module a", "a", (), "", "Return the last item of the list."),
    ]
    train = Corpus((Document("Notes: return the\n    first item of the list, or None.", "n", "txt"),), "t")
    assert contaminated(functions, train) == {"a.f"}
