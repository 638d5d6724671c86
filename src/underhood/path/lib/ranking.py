"""Scores of rankings and of dendrograms against groups that are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def ranked_above(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The share of pairs in which the first group's number is the larger one, ties counting half: the area under the
    ROC curve (Mann and Whitney 1947)."""
    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def best_branch(merges: NDArray[np.float64], members: NDArray[np.bool_]) -> float:
    """How well some branch of a dendrogram is a given set of leaves: the largest Jaccard index; 1 for exactly the set.

    Args:
        merges: of `scipy.cluster.hierarchy.linkage`.
        members: which leaves are in the set.
    """
    branches = list(np.eye(len(members), dtype=bool))
    for left, right, *_ in merges:
        branches.append(branches[int(left)] | branches[int(right)])
    return max(float((branch & members).sum() / (branch | members).sum()) for branch in branches)
