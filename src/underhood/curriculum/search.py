"""Search for the milestone that answers a question: BM25 (Robertson & Zaragoza 2009, equation 3.15) over the topics.

The score is a sum over the question's terms, so `postings` can be shipped to a page, whose script only adds up.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache

from underhood.curriculum.index import covering
from underhood.curriculum.topics import ERAS, topics

K1, B = 1.2, 0.3
UNWRITTEN = 0.5
"""What the score of a topic without a milestone is worth: whoever asks would rather read than be told to wait."""
STEM = 5
"""Letters that a word and its relatives share: backpropagation, backprop; entropy, entropies."""

STOP = frozenset(
    """
    a an and are as at be been but by can could did do does for from had has have how i if in into is it its me my no
    not of on or our should so such than that the their them then there these they this those to too us was we were
    what when where which who whom whose why will with would you your about work works mean means tell explain
    matter really use used
    """.split()  # noqa: SIM905
)


def terms(text: str) -> list[str]:
    """The words of a text that carry meaning, each followed by its first letters where it is longer."""
    tokens = []
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        if word in STOP:
            continue
        tokens.append(word)
        if len(word) > STEM:
            tokens.append(word[:STEM] + "~")
        elif len(word) == STEM:
            tokens.append(word + "~")
    return tokens


@lru_cache(maxsize=1)
def postings() -> Mapping[str, Mapping[str, float]]:
    """For every term the topics that hold it, each with the score that it adds."""
    texts = {id: Counter(terms(text)) for id, text in _texts().items()}
    lengths = {id: sum(counts.values()) for id, counts in texts.items()}
    mean = sum(lengths.values()) / len(lengths)
    built = covering()
    holding: Counter[str] = Counter()
    for counts in texts.values():
        holding.update(counts.keys())
    table: dict[str, dict[str, float]] = {}
    for id, counts in texts.items():
        for term, count in counts.items():
            rarity = math.log(1 + (len(texts) - holding[term] + 0.5) / (holding[term] + 0.5))
            score = rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * lengths[id] / mean))
            table.setdefault(term, {})[id] = round(score if id in built else UNWRITTEN * score, 3)
    return table


def search(question: str, most: int = 8) -> list[tuple[str, float]]:
    """Topic ids and scores, the best first; empty if no word of the question is known."""
    scores: defaultdict[str, float] = defaultdict(float)
    table = postings()
    for term in set(terms(question)):
        for id, score in table.get(term, {}).items():
            scores[id] += score
    built = covering()
    order = list(topics())
    ranked = sorted(scores, key=lambda id: (-scores[id], id not in built, order.index(id)))
    return [(id, scores[id]) for id in ranked[:most]]


def _texts() -> dict[str, str]:
    """The text that describes each topic.

    A milestone's main topic carries its words; titles and questions count thrice.
    """
    built = covering()
    texts = {}
    for id, topic in topics().items():
        parts = [topic.title] * 3 + [id.replace("-", " ")] * 2 + [topic.module, ERAS[topic.section]]
        milestone = built.get(id)
        if milestone is not None:
            if id == milestone.topics[0]:
                parts += [*[milestone.title, milestone.question, *milestone.asks] * 3, milestone.idea]
                parts += [claim.statement for claim in milestone.claims if claim.topic in ("", id)]
            else:
                parts += [claim.statement for claim in milestone.claims if claim.topic == id]
        texts[id] = " ".join(parts)
    return texts
