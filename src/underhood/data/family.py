"""Two family trees of the same shape and the questions they answer (Rumelhart, Hinton & Williams 1986, Figure 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ENGLISH = [
    "Christopher",
    "Penelope",
    "Andrew",
    "Christine",
    "Margaret",
    "Arthur",
    "Victoria",
    "James",
    "Jennifer",
    "Charles",
    "Colin",
    "Charlotte",
]
ITALIAN = [
    "Roberto",
    "Maria",
    "Pierro",
    "Francesca",
    "Gina",
    "Emilio",
    "Lucia",
    "Marco",
    "Angela",
    "Tomaso",
    "Alfonso",
    "Sophia",
]
PEOPLE = ENGLISH + ITALIAN
# Both families have the same shape; numbers are places in the lists above.
COUPLES = ((0, 1), (2, 3), (5, 4), (7, 6), (9, 8))  # husband, wife
CHILDREN = {(0, 1): (5, 6), (2, 3): (7, 8), (7, 6): (10, 11)}
WOMEN = {1, 3, 4, 6, 8, 11}
GENERATION = (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2)
RELATIONS = [
    "father",
    "mother",
    "husband",
    "wife",
    "son",
    "daughter",
    "uncle",
    "aunt",
    "brother",
    "sister",
    "nephew",
    "niece",
]


def questions() -> tuple[Floats, Floats, Floats]:
    """One-hot people (104, 24), one-hot relations (104, 12), and who fits (104, 24)."""
    father, mother = ({child: c[who] for c, kids in CHILDREN.items() for child in kids} for who in (0, 1))
    spouse = {a: b for h, w in COUPLES for a, b in ((h, w), (w, h))}

    def siblings(p: int) -> set[int]:
        return {q for q in father if p in father and father[q] == father[p] and q != p}

    def children(p: int) -> set[int]:
        return {child for couple, kids in CHILDREN.items() if p in couple for child in kids}

    def parents_side(p: int) -> set[int]:
        """Parents' brothers and sisters, and whom they married."""
        blood = {s for parent in (father.get(p), mother.get(p)) if parent is not None for s in siblings(parent)}
        return blood | {spouse[s] for s in blood if s in spouse}

    rows = []
    for p in range(12):
        related = {q for q in range(12) if p in parents_side(q)}
        answer = {
            "father": {father[p]} if p in father else set(),
            "mother": {mother[p]} if p in mother else set(),
            "husband": {spouse[p]} - WOMEN if p in spouse else set(),
            "wife": {spouse[p]} & WOMEN if p in spouse else set(),
            "son": children(p) - WOMEN,
            "daughter": children(p) & WOMEN,
            "uncle": parents_side(p) - WOMEN,
            "aunt": parents_side(p) & WOMEN,
            "brother": siblings(p) - WOMEN,
            "sister": siblings(p) & WOMEN,
            "nephew": related - WOMEN,
            "niece": related & WOMEN,
        }
        rows += [(p, RELATIONS.index(name), who) for name, who in answer.items() if who]
    both = [(p + shift, r, {q + shift for q in who}) for shift in (0, 12) for p, r, who in rows]
    fits = np.array([[float(q in who) for q in range(24)] for _, _, who in both])
    return np.eye(24)[[p for p, _, _ in both]], np.eye(12)[[r for _, r, _ in both]], fits
