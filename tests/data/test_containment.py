"""Documents that are almost whole inside longer ones are left out."""

from __future__ import annotations

from underhood.data.clean import clean
from underhood.data.containment import contained
from underhood.data.documents import Corpus, Document


def _paragraph(number: int) -> str:
    return f"Paragraph number {number} says something that no other paragraph of this small test says."


def _corpus(*texts: str) -> Corpus:
    return Corpus(tuple(Document(text, f"d{n}", "txt") for n, text in enumerate(texts)), "test")


CHAPTER = "\n\n".join(_paragraph(n) for n in range(10))
PAGE = "\n\n".join(_paragraph(n) for n in range(3, 6))
HALF = "\n\n".join([_paragraph(9), _paragraph(100)])


def test_contained_finds_a_page_within_a_chapter_and_names_it():
    assert contained([PAGE, CHAPTER, HALF], 0.6) == {0: (1, 1.0)}


def test_contained_sets_case_and_spacing_aside_but_not_words():
    assert 1 in contained([CHAPTER, PAGE.upper().replace(" ", "  ")], 0.6)
    assert contained([CHAPTER, PAGE.replace("says", "said")], 0.6) == {}


def test_contained_share_is_the_threshold():
    assert contained([CHAPTER, HALF], 0.6) == {}
    assert set(contained([CHAPTER, HALF], 0.45)) == {1}


def test_contained_text_may_be_spread_over_several_longer_ones():
    other = "\n\n".join(_paragraph(n) for n in range(50, 60))
    both = "\n\n".join([_paragraph(1), _paragraph(55)])
    assert set(contained([CHAPTER, other, both], 0.9)) == {2}


def test_clean_drops_contained_documents_with_the_reason_and_the_holder():
    cleaned, report = clean(_corpus(PAGE, CHAPTER, HALF))
    assert [document.name for document in cleaned.documents] == ["d1", "d2"]
    assert [(d.name, d.reason, d.kept) for d in report.dropped] == [("d0", "contained", "d1")]


def test_clean_without_containment_keeps_the_page():
    """The ablation: similarity alone can't see that a page is part of a chapter."""
    cleaned, _ = clean(_corpus(PAGE, CHAPTER, HALF), containment=None)
    assert len(cleaned) == 3
