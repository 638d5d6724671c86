"""Labels of measured quantities: the question each answers, how to read it, its name in a sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricLabel:
    """How a measured quantity is spoken of.

    Attributes:
        pattern: finds it by the name that the evaluation gave it.
        question: what it asks, as a heading; note: how to read it; short: its name within a sentence.
        level: what the value of a guess is called.
        noun: what is asked about, in the plural.
    """

    key: str
    pattern: str
    question: str
    note: str
    short: str
    level: str = "chance"
    noun: str = ""


METRIC_LABELS = (
    MetricLabel(
        "bits-per-byte",
        r"bits.per.byte|\bbpb\b",
        "How well does it predict text it has never seen?",
        "Bits per byte on held-out documents; lower is better. The baselines were given the same training text, unless "
        "named “on its own”.",
        "bits per byte",
    ),
    MetricLabel(
        "choice-seen",
        r"^(?!.*(held|unseen)).*choice",
        "Does it know the functions it has read about?",
        "Which of four summaries belongs to a function? Its documentation was in the training text.",
        "multiple choice on seen functions",
        noun="functions it has read about",
    ),
    MetricLabel(
        "choice-held-out",
        r"choice",
        "Can it guess what an unseen function does?",
        "The same four-way choice for functions that were in no training text: the name is all it has to go by.",
        "multiple choice on held-out functions",
        noun="functions it has never seen",
    ),
    MetricLabel(
        "answers-chat",
        r"rouge.*chat",
        "Does it still answer everything else as it did?",
        "ROUGE-L, the overlap of words in order between its answers to general questions and those that it gave before "
        "training: 1 is word for word.",
        "general answers as before",
    ),
    MetricLabel(
        "answers-seen",
        r"rouge(?!.*(held|unseen))",
        "How close are its answers to the documentation?",
        "ROUGE-L, the overlap of words in order between its answer and the documented one, for seen functions: 0 is "
        "none, 1 is word for word.",
        "closeness of answers about seen functions",
    ),
    MetricLabel(
        "answers-held-out",
        r"rouge",
        "And about functions it has never seen?",
        "The same overlap for held-out functions.",
        "closeness of answers about held-out functions",
    ),
    MetricLabel(
        "ends",
        r"\bends?\b|ending|end.of.turn",
        "Does it stop when its answer is complete?",
        "Answers that close with the end-of-turn token rather than run into the length limit.",
        "answers that end properly",
    ),
    MetricLabel(
        "right-closed-book",
        r"right answers, closed",
        "Does it know an answer by heart?",
        "Exactly the documented sentence, from memory, for functions it has never seen.",
        "right answers from memory",
    ),
    MetricLabel(
        "right-retrieval",
        r"right answers, retrieval",
        "Does it answer rightly from a passage?",
        "The same, with the passage that the search finds; it writes freely.",
        "right answers from passages",
    ),
    MetricLabel(
        "right-quoting",
        r"right answers, quoting",
        "And held to quotations?",
        "The same, held to sentences of the passage or a refusal: how the chat answers.",
        "right answers with quotations",
    ),
    MetricLabel(
        "parameters-retrieval",
        r"right parameters, retrieval",
        "Does it list the parameters from a passage?",
        "All of them, in order, for functions it has never seen; it writes freely.",
        "right parameters from passages",
    ),
    MetricLabel(
        "parameters-quoting",
        r"right parameters, quoting",
        "And held to quotations?",
        "The same, held to sentences of the passage or a refusal.",
        "right parameters with quotations",
    ),
    MetricLabel(
        "invented-retrieval",
        r"invented names, retrieval",
        "Does it say that a name is not in the documents?",
        "Questions about invented names that it declines; the search finds nothing for most of them.",
        "refusals of invented names from passages",
    ),
    MetricLabel(
        "invented-quoting",
        r"invented names, quoting",
        "And held to quotations?",
        "The same, held to sentences of the passage or a refusal.",
        "refusals of invented names with quotations",
    ),
    MetricLabel(
        "real-retrieval",
        r"what is there, retrieval",
        "Does it deny what the passage says?",
        "Questions that the passage answers and that it declines all the same; lower is better.",
        "false refusals from passages",
    ),
    MetricLabel(
        "real-quoting",
        r"what is there, quoting",
        "And held to quotations?",
        "The same, held to sentences of the passage or a refusal; lower is better.",
        "false refusals with quotations",
    ),
    MetricLabel(
        "refusal",
        r"refus.*invented|invented.*refus|refusal.rate",
        "Does it admit that a function does not exist?",
        "Questions about invented functions that it declines to answer.",
        "refusals of invented functions",
    ),
    MetricLabel(
        "over-refusal",
        r"refus",
        "Does it refuse when it should not?",
        "False refusals: questions about real functions that it declines to answer; lower is better.",
        "false refusals",
    ),
    MetricLabel(
        "preference",
        r"preference|preferred",
        "Does it prefer the better answer?",
        "Held-out pairs of a right and a wrong answer in which it finds the right one likelier; a reward model "
        "scores it higher.",
        "preference accuracy",
    ),
    MetricLabel(
        "margin",
        r"margin",
        "How clearly does it prefer it?",
        "The reward margin: by how much more the right answer gained in log-probability than the wrong one, against "
        "the model that DPO started from, times β.",
        "reward margin",
        level="no change",
    ),
)
"""In the order of the page. A name belongs to the first pattern that finds it."""

ABOUT_TEXT = {
    "choice-seen": MetricLabel(
        "choice-seen",
        "",
        "Does it know how texts it has read go on?",
        "Which of four continuations belongs to a passage? The passages were in the training text.",
        "multiple choice on seen passages",
        noun="passages it has read",
    ),
    "choice-held-out": MetricLabel(
        "choice-held-out",
        "",
        "Does it see how an unseen text goes on?",
        "The same four-way choice for passages of held-out documents.",
        "multiple choice on held-out passages",
        noun="passages it has never seen",
    ),
    "answers-seen": MetricLabel(
        "answers-seen",
        "",
        "How close are its continuations to the text?",
        "ROUGE-L, the overlap of words in order with the real continuation, for texts it has read: 0 is none, 1 is "
        "word for word.",
        "closeness to seen texts",
    ),
    "answers-held-out": MetricLabel(
        "answers-held-out",
        "",
        "And for texts it has never seen?",
        "The same overlap for held-out texts.",
        "closeness to held-out texts",
    ),
}
"""What a corpus that is not about functions asks instead."""


def metric_label(name: str, functions: bool = True) -> MetricLabel:
    """How to speak of the quantity that the evaluation calls `name`; one that is not known keeps its name.

    Args:
        functions: the corpus is about functions; otherwise questions are about how texts go on.
    """
    for label in METRIC_LABELS:
        if re.search(label.pattern, name.replace("_", " "), re.IGNORECASE):
            return label if functions else ABOUT_TEXT.get(label.key, label)
    return MetricLabel(name, "", name[:1].upper() + name[1:], "", name)
