"""Question templates: the ways in which people type a question about a function.

Names come in backticks, bare, with an empty call behind them; questions come with and without capitals and question
marks. Test questions (`benchmarks/questions`) were written apart from these lists.
"""

from __future__ import annotations

import random
import re

DESCRIBE = (
    "What does `{name}` do?",
    "What is `{name}` for?",
    "Describe `{name}` in one sentence.",
    "Explain `{name}`.",
)
"""Questions of the evaluation, in the form of the documentation."""

PARAMETERS = (
    "What are the parameters of `{name}`?",
    "Which parameters does `{name}` take?",
    "What arguments does `{name}` accept?",
)

TYPED_DESCRIBE = (
    *("What does {name} do?", "What is {name} for?", "Describe {name} in one sentence.", "Explain {name}."),
    *("What is {name}?", "What does {name} do", "Tell me about {name}", "What does {name} return?", "{name}"),
    *("What is {name} used for", "Explain {name} to me", "Can you explain {name}?", "What's {name}?", "{name}?"),
    *("Describe {name}", "When do I use {name}?", "What happens when I call {name}?", "Documentation of {name}"),
)
TYPED_PARAMETERS = (
    *("What are the parameters of {name}?", "Which parameters does {name} take?", "Parameters of {name}"),
    *(
        "What arguments does {name} accept?",
        "Arguments of {name}",
        "What parameters does {name} have",
        "How do I call {name}?",
    ),
    *("What are the arguments of {name}", "Which arguments can I give to {name}?", "Signature of {name}"),
)
POINTING_DESCRIBE = ("What does it do?", "and what is it for?", "Explain it", "What is that?", "what does this do")
POINTING_PARAMETERS = (
    *(
        "And its parameters?",
        "its parameters",
        "What are its parameters?",
        "which arguments does it take",
        "its arguments?",
    ),
    *("What parameters does it have?", "and the arguments?", "how do I call it?", "what are the arguments?"),
)
"""Questions that go on from the turn before: the passage has the name, the question has not."""

NAMES = ("`{name}`", "`{name}`", "{name}", "{name}", "{name}", "{name}()", "`{name}()`")
"""Ways to write a name, by how often they are drawn."""

HOW_TO = (
    *("How do I {task}?", "How can I {task}?", "How to {task}", "How do you {task}?", "I want to {task}", "{task}"),
    *(
        "What can I use to {task}?",
        "Which function do I need to {task}?",
        "How would I {task}",
        "Is there a way to {task}?",
    ),
)


def as_typed(question: str, pick: random.Random) -> str:
    """The question as somebody in a hurry types it, sometimes: without capitals, without the mark at its end."""
    if pick.random() < 0.35 and not question.startswith("`") and question.split()[0].istitle():
        question = question[0].lower() + question[1:]
    if pick.random() < 0.3:
        question = question.rstrip("?.")
    return question


def typed_question(forms: tuple[str, ...], name: str, pick: random.Random) -> str:
    """A question about a name in one of these forms."""
    written = pick.choice(NAMES).format(name=name)
    form = pick.choice(forms)
    if form in ("{name}", "{name}?"):
        return form.format(name=written)
    return as_typed(form.format(name=written), pick)


_TASK = re.compile(r"^[A-Z][a-z]+ [a-z]")
_NOT_VERBS = {"a", "an", "the", "this", "these", "base", "abstract", "helper", "class", "like", "if", "when", "for"}
_OTHER_VERBS = {
    **dict.fromkeys(("return", "retrieve", "fetch", "obtain"), ("get", "find", "return", "know")),
    **dict.fromkeys(("remove", "delete", "unlink"), ("remove", "delete", "get rid of")),
    **dict.fromkeys(("create", "construct", "build"), ("create", "make", "build")),
    **dict.fromkeys(("test", "check", "determine"), ("check", "test", "find out")),
    **dict.fromkeys(("convert", "translate"), ("convert", "turn", "change")),
    **dict.fromkeys(("print", "display"), ("print", "show", "display")),
    **dict.fromkeys(("compute", "calculate"), ("compute", "calculate", "get")),
    **dict.fromkeys(("run", "execute"), ("run", "execute", "start")),
}
_SMALL_WORDS = {"a", "an", "the", "of", "this", "that", "given", "specified", "all", "any"}


def task_of(summary: str, pick: random.Random) -> str | None:
    """What a summary in the imperative is about, as a task: "Return the square root of x." → "get square root of x".

    Verbs are replaced by their like and small words dropped, sometimes, since nobody types what the documentation
    says. None for summaries that describe otherwise ("A subclass of …", "Base class for …").
    """
    if not _TASK.match(summary):
        return None
    text = re.split(r"(?:[;:(]| -- |\. )", summary, maxsplit=1)[0].split(",")[0].rstrip(". ")
    verb, _, rest = text.partition(" ")
    verb = verb.lower()
    if verb in _NOT_VERBS or verb.endswith(("ed", "ing", "er", "or", "tion")) or len(rest) < 8:
        return None
    verb = verb.removesuffix("s") if verb.endswith("s") and not verb.endswith("ss") else verb
    verb = pick.choice(_OTHER_VERBS.get(verb, (verb,)))
    words = [word for word in rest.split() if word not in _SMALL_WORDS or pick.random() < 0.6]
    return " ".join([verb, *words[: pick.choice((2, 2, 3, 3, 4, 4, 5, 6, 8))]]).rstrip(",")


def how_to_question(task: str, pick: random.Random) -> str:
    """A question how to do something."""
    return as_typed(pick.choice(HOW_TO).format(task=task), pick)
