"""Search data for a page: entries, postings and word lists that ``pages/search.js`` ranks with."""

from __future__ import annotations

from typing import Any

from underhood.curriculum.index import milestones
from underhood.curriculum.search import ranking
from underhood.curriculum.search.analysis import ROOT_MIN, STOPPED, SUFFIXES
from underhood.curriculum.search.entries import KIND_WEIGHT, KINDS
from underhood.curriculum.search.newcomer_words import EXPANSION_WEIGHT, expansions

UNIT = 1000
"""Impacts are shipped as whole numbers of 1 / UNIT."""


def page_data() -> dict[str, Any]:
    """Everything that a page needs to rank as `underhood.curriculum.search.ranking.search` does."""
    index = ranking.search_index()
    postings = {}
    for term in index.bm25.vocabulary:
        documents, impacts = index.bm25.postings(term)
        pairs = zip(documents.tolist(), impacts.tolist(), strict=True)
        postings[term] = [number for document, impact in pairs for number in (document, round(impact * UNIT))]
    covered = {milestone.stem: milestone.topics for milestone in milestones().values()}
    return {
        "entries": [
            {
                "kind": entry.kind,
                "target": entry.target,
                "title": entry.title,
                "summary": entry.summary,
                "page": entry.page,
                "weight": KIND_WEIGHT[entry.kind],
                "topics": list(covered.get(entry.target, [entry.target] if entry.kind == "topic" else [])),
            }
            for entry in index.entries
        ],
        "kinds": KINDS,
        "postings": postings,
        "expansions": {phrase: list(terms) for phrase, terms in expansions().items()},
        "named": index.named,
        "stop": sorted(STOPPED),
        "suffixes": list(SUFFIXES),
        "limits": {
            "unit": UNIT,
            "root": ROOT_MIN,
            "derived": ranking.DERIVED_WEIGHT,
            "joined": ranking.JOINED_WEIGHT,
            "expansion": EXPANSION_WEIGHT,
            "phrase": ranking.PHRASE_MAX,
            "alone": ranking.ALONE,
            "named": ranking.NAMED,
            "asked": ranking.ASKED,
            "asking": list(ranking.ASKING),
            "relevant": ranking.RELEVANT,
        },
    }
