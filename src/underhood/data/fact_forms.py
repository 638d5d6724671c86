"""Question templates for facts: how people ask for a field of a record, and about what a heading names."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from underhood.data.question_forms import as_typed
from underhood.data.sentence_parts import PREPOSITIONS

FIELD_FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"price|costs?\b|fee|deposit|rent|rate\b",
        (
            *("How much does {the} cost?", "How much is {the}?", "What does {the} cost?", "price of {the}"),
            *("What is the price of {the}?", "How much do I pay for {the}?", "{name} price"),
        ),
    ),
    (
        r"material|made of|fabric",
        ("What is {the} made of?", "What material is {the}?", "What material is {the} made of?"),
    ),
    (r"ingredient|contains|contents", ("What is in {the}?", "What does {the} contain?", "What is {the} made of?")),
    (
        r"made in|origin|country|from\b",
        (
            *("Where is {the} made?", "Where does {the} come from?", "In which country is {the} made?"),
            *("Where is {the} from?", "Which country is {the} from?"),
        ),
    ),
    (
        r"place|location|address|room|where|city|venue",
        ("Where is {the}?", "Where can I find {the}?", "How do I find {the}?", "{name} {label}"),
    ),
    (
        r"stock|quantity|amount|number|count|inhabitants|population|pieces",
        (
            *("How many {many} are there?", "How many {many} are in {label}?", "How many {many} are left?"),
            "{name} {label}",
        ),
    ),
    (
        r"years|days|weeks|months|hours|minutes",
        ("How many {label} does {the} keep?", "How long does {the} last?", "How long does {the} keep?"),
    ),
    (
        r"warranty|guarantee",
        (
            *("How long is the {label} of {the}?", "How long does the {label} of {the} last?"),
            *("What {label} does {the} have?", "Is there a {label} on {the}?", "How long is the {label} on {the}?"),
        ),
    ),
    (r"duration|length|time\b", ("How long is {the}?", "How long does {the} take?", "How long does {the} last?")),
    (
        r"founded|born|released|opened|built|invented|started|published",
        ("When was {the} {label}?", "In which year was {the} {label}?", "What year was {the} {label}?"),
    ),
    (r"date|day\b|when|year\b", ("When is {the}?", "When was {the}?", "What is the date of {the}?")),
    (r"opening|start", ("When does {the} start?", "When does {the} open?", "When is the {label} of {the}?")),
    (
        r"person|contact|responsible|who",
        (
            *("Who looks after {the}?", "Who is responsible for {the}?", "Who takes care of {the}?"),
            *("Who is in charge of {the}?", "Whom do I ask about {the}?"),
        ),
    ),
    (r"author|writer", ("Who wrote {the}?", "Who is the {label} of {the}?")),
    (
        r"manager|owner|mayor|leader|chair|supplier|director|teacher",
        ("Who is the {label} of {the}?", "Who's the {label} of {the}?", "{label} of {the}"),
    ),
    (
        r"telephone|phone|mail",
        (
            *("What is the number for {the}?", "How do I reach {the}?", "Whom do I call about {the}?"),
            *("What number do I call about {the}?", "{name} {label}"),
        ),
    ),
    (r"category|group|class", ("Which {label} is {the} in?", "What {label} is {the} in?", "{label} of {the}")),
    (r"type|kind|genre|language", ("What {label} is {the}?", "Which {label} is {the}?", "{label} of {the}")),
    (
        r"meaning|description|definition|answer|summary",
        ("What is {name}?", "What does {name} mean?", "What does {name} do?", "What is {name} for?"),
    ),
    (r"cause|reason", ("What causes {name}?", "Why do I get {name}?", "What does {name} mean?", "What is {name}?")),
    (r"purpose|use", ("What is {name} for?", "What is {name} used for?", "What do I use {name} for?")),
    (
        r"remedy|solution|fix|treatment",
        ("How do I fix {name}?", "What helps against {name}?", "What can I do about {name}?"),
    ),
)
"""Patterns of labels, and how people ask for such a field; ``{the}`` is the record's name, often with an article."""

ANY_FIELD = (
    *("What is the {label} of {the}?", "What's the {label} of {the}?", "{label} of {the}", "{name} {label}"),
    *("Which {label} does {the} have?", "What {label} does {the} have?", "Tell me the {label} of {the}"),
)
NOT_OWNED = frozenset(
    [
        *("person", "contact", "responsible", "who", "stock", "pieces", "years", "days", "weeks", "months", "hours"),
        *("minutes", "founded", "born", "released", "opened", "built", "invented"),
    ]
)
"""Labels that are not asked for as "the … of it"; neither are those that end in one of `BEHIND`."""

BEHIND = frozenset(["in", "from", "of", "by", "at", "to", "for", "on"])

DEFINED = (
    *("What is {name}?", "What does {name} mean?", "What is {a}?", "{name}?", "What's {name}?", "Explain {name}"),
    *("Tell me about {name}", "What is meant by {name}?", "What is the meaning of {name}?"),
)
DOES = ("What does {name} do?", "What is {name} for?", "{name}?", "Explain {name}", "What's {name} for?")
ABOUT = (
    *("Tell me about {the}", "{name}?", "What about {the}?", "What does it say about {the}?", "{name}"),
    *("What should I know about {the}?", "What is there to know about {the}?", "What is {the}?"),
)
DOING = (
    *("How does {name} work?", "Tell me about {name}", "What about {name}?", "{name}?", "What do I need for {name}?"),
    *("{name}", "What is there to know about {name}?", "What does it say about {name}?"),
)
IN_TIME = ("What is there to do in {name}?", "What happens in {name}?", "What about {name}?", "What do I do in {name}?")
IN_A_YEAR = ("What happened in {name}?", "What changed in {name}?", "What about {name}?", "{name}?")
OCCASION = ("What should I do {name}?", "What do I do {name}?", "What to do {name}", "{name}?")
CLAUSE = ("{name}?", "{name}", "Tell me {name}")

_MONTH = r"January|February|March|April|May|June|July|August|September|October|November|December"
_SEASON = r"spring|summer|autumn|winter"
_TIME = re.compile(rf"(?:{_MONTH}|{_SEASON})", re.IGNORECASE)
_YEAR = re.compile(r"1\d{3}|20\d{2}")
_UNITS = frozenset("eur usd gbp chf kg g cm mm m km ml l cl percent euros dollars pounds".split())  # noqa: SIM905
_VERBS = frozenset("is are was were has have can may must will do does should would could had".split())  # noqa: SIM905
_BETWEEN = PREPOSITIONS - {"of"}
_ORDERS = frozenset(
    """
    add ask call choose click cut enter install mix note open plant press put run see select set sow take try type use
    write
    """.split()  # noqa: SIM905
)
"""Verbs of an order with a colon in it ("Use Homebrew: …"), which is not a field."""

LONGEST_LABEL = 5
"""Words of a field's label at most."""


def label_of(text: str) -> str:
    """A field's label as people say it, without a unit: "Price eur" → "price"; "" for a sentence with a colon in it."""
    words = text.split()
    folded = [word.casefold() for word in words]
    if len(words) > 1 and folded[0] in _ORDERS:
        return ""
    if not 0 < len(words) <= LONGEST_LABEL or _VERBS.intersection(folded) or _BETWEEN.intersection(folded[:-1]):
        return ""
    if len(words) > 1 and words[-1].casefold() in _UNITS:
        words.pop()
    label = " ".join(words)
    return label if label.isupper() else label[:1].lower() + label[1:]


def field_questions(name: str, label: str, pick: random.Random) -> Iterator[str]:
    """Questions for the field `label` of the record `name`."""
    forms = _written(name, pick) | {"label": label, "many": _plural(name)}
    for pattern, questions in FIELD_FORMS:
        if re.search(rf"\b(?:{pattern})", label, re.IGNORECASE):
            yield from (as_typed(question.format_map(forms), pick) for question in pick.sample(questions, 2))
    first, _, last = label.casefold().rpartition(" ")
    if label.casefold() not in NOT_OWNED and not (first and last in BEHIND):
        yield as_typed(pick.choice(ANY_FIELD).format_map(forms), pick)


def heading_question(name: str, sentence: str, defines: bool, pick: random.Random) -> str:
    """A question about what a heading names, answered by the first sentence below it.

    Args:
        defines: whether the sentence says what the name is.
    """
    first = name.partition(" ")[0]
    forms = _written(name, pick)
    lower = {"name": name[:1].lower() + name[1:] if name[1:2].islower() else name}
    if _TIME.fullmatch(name):
        chosen, written = IN_TIME, {"name": name}
    elif _YEAR.fullmatch(name):
        chosen, written = IN_A_YEAR, {"name": name}
    elif first in ("When", "If"):
        chosen, written = OCCASION, lower
    elif first in ("How", "Where", "What", "Who", "Why", "Which") and len(name.split()) > 1:
        chosen, written = CLAUSE, lower
    elif defines:
        chosen, written = DEFINED, forms
    elif _does_something(name, sentence):
        chosen, written = DOES, forms
    elif len(first) > 4 and first.endswith("ing"):
        chosen, written = DOING, lower
    else:
        chosen, written = ABOUT, forms
    return as_typed(pick.choice(chosen).format_map(written), pick)


def _does_something(name: str, sentence: str) -> bool:
    """Whether a sentence tells what a command or an option does: "Prints errors only."."""
    verb = sentence.partition(" ")[0]
    if re.match(r"The (?:command|option|switch|button|function|program|tool|script)\b", sentence):
        return True
    action = len(verb) > 3 and verb[:1].isupper() and verb.isalpha() and verb.endswith("s") and not verb.endswith("ss")
    return action and verb.casefold() not in name.casefold()


def _written(name: str, pick: random.Random) -> dict[str, str]:
    """The name as it is, with "the" and with "a", sometimes in lower case."""
    written = name if pick.random() < 0.7 or name.isupper() or not name.isascii() else name[:1].lower() + name[1:]
    named = len(name.split()) < 2 or pick.random() < 0.2
    article = "an" if written[:1].lower() in "aeiou" else "a"
    single = written if written.endswith("s") else f"{article} {written}"
    return {"name": written, "the": written if named else f"the {written}", "a": single}


def _plural(name: str) -> str:
    """The last word of a name in the plural, unless it is one."""
    if not name[-1:].isalpha() or name.endswith("s"):
        return name
    if name.endswith(("x", "ch", "sh", "z")):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2:-1] not in "aeiou" else f"{name}s"
