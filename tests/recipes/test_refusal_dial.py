"""The dial of preference training: how many of the pairs about refusing prefer the refusal."""

from collections import Counter

import pytest

from underhood.data.preferences import Pair
from underhood.recipes.stages.dpo import DPOSettings, with_refusals

KINDS = 30 * ["invented"] + 30 * ["over-refusal"] + 40 * ["wrong-function"]
PAIRS = [Pair(({"role": "user", "content": str(n)},), "a", "b", kind, "f") for n, kind in enumerate(KINDS)]


@pytest.mark.parametrize(
    ("share", "invented", "over"), [(0.5, 30, 30), (0.0, 0, 30), (1.0, 30, 0), (0.75, 30, 10), (0.25, 10, 30)]
)
def test_share_of_right_refusals(share: float, invented: int, over: int):
    kept = with_refusals(PAIRS, share)
    assert Counter(pair.kind for pair in kept) == Counter(
        {"invented": invented, "over-refusal": over, "wrong-function": 40}
    )
    assert kept == [pair for pair in PAIRS if pair in kept]  # in their order


def test_pairs_about_other_things_are_left_alone():
    rest = PAIRS[60:]
    assert with_refusals(rest, 0.9) == rest


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        DPOSettings(refusals=1.2)
