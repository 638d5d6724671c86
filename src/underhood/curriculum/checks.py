"""Papers that contradict themselves, found by doing their sums again: ``underhood path check``.

Each check takes what a paper prints and computes from it what the paper prints elsewhere. Nothing is measured; anybody
can repeat it with the paper at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from underhood.core.milestone import Evidence
from underhood.core.verdicts import Estimate, ExactRule, Verdict, explained, judge


@dataclass(frozen=True)
class Check:
    """One printed statement and its recomputation.

    Attributes:
        topic: of the path.
        paper: whose statement; `where` in it.
        printed: the statement as printed, a number with its meaning in `what`.
        from_: what it is computed from, as printed in the same paper.
        again: computes it.
        within: how far apart rounding alone can bring the two.
    """

    topic: str
    paper: str
    where: str
    what: str
    printed: float
    from_: str
    again: Callable[[], float]
    within: float
    evidence: Evidence = "verified"

    @property
    def recomputed(self) -> float:
        return self.again()

    @property
    def verdict(self) -> Verdict:
        """``"exact"``, or ``"source's misprint"``, as a milestone's claim of the same kind is judged."""
        again = self.recomputed
        return explained(judge(ExactRule(self.printed, self.within), Estimate((again,), again)), "source's misprint")


def zipf_entropy(constant: float = 0.1) -> tuple[int, float]:
    """Of Shannon's word model p(n) = constant / n: the rank at which it sums to one, and its entropy in bits."""
    total, bits, rank = 0.0, 0.0, 0
    while total < 1:
        rank += 1
        p = min(constant / rank, 1 - total)
        total += p
        bits -= p * math.log2(p)
    return rank, bits


def chinchilla_ratio(flop: float = 5.76e23) -> float:
    """Tokens per parameter at the best use of `flop` by the printed constants (Hoffmann et al. 2022, equation 4)."""
    a, b, alpha, beta = 406.4, 410.7, 0.34, 0.28
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    parameters = g * (flop / 6) ** (beta / (alpha + beta))
    return flop / 6 / parameters**2


CHECKS = (
    Check("markov-1913", "copies of Markov 1913", "pair counts", "pairs in 20,000 letters", 20_000,
          "n letters have n − 1 pairs of neighbours", lambda: 20_000 - 1, 0),
    Check("shannon-1951", "Shannon 1951", "section 2", "rank at which p(n) = 0.1/n sums to one", 8_727,
          "the harmonic sum itself", lambda: float(zipf_entropy()[0]), 0.5),
    Check("shannon-1951", "Shannon 1951", "section 2", "bits per word of that model", 11.82,
          "p(n) = 0.1/n up to that rank", lambda: zipf_entropy()[1], 0.005),
    Check("elman-lexical", "Elman 1990", "pp. 195 and 198", "words in the stream, printed again", 27_354,
          "27,534, printed three times", lambda: 27_534, 0),
    Check("elman-lexical", "Elman 1990", "tables 3 and 4", "categories of words", 13,
          "the categories that table 3 lists", lambda: 12, 0),
    Check("bengio-2003", "Bengio et al. 2003", "section 4.2", "% by which the net is better on AP News", 8,
          "perplexities 117 and 109 of table 2", lambda: 100 * (117 / 109 - 1), 0.5),
    Check("bengio-2003", "Bengio et al. 2003", "section 4.2", "% by which the net is better on Brown", 24,
          "perplexities 312 and 252 of table 1", lambda: 100 * (312 / 252 - 1), 0.5),
    Check("transformer-2017", "Vaswani et al. 2017", "section 6.1", "BLEU, English to French", 41.0,
          "abstract and table 2", lambda: 41.8, 0.05),
    Check("gpt3-2020", "Brown et al. 2020", "section 3.9.1", "% of three-digit additions", 80.2,
          "table 3.9", lambda: 80.4, 0.05),
    Check("lm-compressor", "Delétang et al. 2023", "abstract", "% of raw size, ImageNet, Chinchilla 70B", 43.4,
          "table 1", lambda: 48.0, 0.05),
    Check("lm-compressor", "Delétang et al. 2023", "abstract", "% of raw size, LibriSpeech, Chinchilla 70B", 16.4,
          "table 1", lambda: 21.0, 0.05),
    Check("chinchilla", "Hoffmann et al. 2022", "abstract", "MMLU, %", 67.5, "table 6", lambda: 67.6, 0.05),
    Check("chinchilla", "Hoffmann et al. 2022", "headline", "tokens per parameter", 20,
          "the constants of approach 3, at 5.76e23 FLOP", chinchilla_ratio, 2),
    Check("data-quality", "Hernandez et al. 2022", "abstract", "million parameters, effective", 400,
          "section 2", lambda: 340, 5),
    Check("swa-mistral", "Jiang et al. 2023", "caption", "benchmarks won against Llama 2 13B", 12,
          "the twelve columns of table 2", lambda: 11, 0),
    Check("llama3-recipe", "Dubey et al. 2024", "section 3.2.1", "FLOP, in 1e25", 3.8,
          "6 × 402e9 parameters × 16.55e12 tokens", lambda: 6 * 402e9 * 16.55e12 / 1e25, 0.05),
    Check("llama3-infra", "Dubey et al. 2024", "table 5", "% of interruptions by faulty GPUs", 30.1,
          "148 of 419", lambda: 100 * 148 / 419, 0.05),
)  # fmt: skip
"""Statements whose other side is a second print of the same paper return that print."""
