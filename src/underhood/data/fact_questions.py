"""Question generation from facts: the questions that a field, a definition or a sentence of a document answers.

By rules on the surface of the text, as in early question generation (Heilman & Smith 2010, without a parser): the label
of a field, the heading, "X is …", and what a sentence names (a person, a date, a place, a number) choose the form. The
questions teach which sentence answers which kind of question; they need not be elegant.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from underhood.data.question_forms import as_typed

LONGEST_LABEL = 5
"""Words of a field's label at most."""

FIELD_FORMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"price|costs?\b|fee|deposit|rent|rate\b",
        (
            *("How much does {the} cost?", "How much is {the}?", "What does {the} cost?", "price of {the}"),
            "What is the price of {the}?",
        ),
    ),
    (
        r"material|made of|fabric|ingredient|contains",
        ("What is {the} made of?", "What material is {the}?", "What material is {the} made of?", "What is in {the}?"),
    ),
    (
        r"made in|origin|country|from\b",
        (
            *("Where is {the} made?", "Where does {the} come from?", "In which country is {the} made?"),
            "Which country is {the} from?",
        ),
    ),
    (
        r"place|location|address|room|where|city|venue",
        ("Where is {the}?", "Where can I find {the}?", "Where is that, {the}?"),
    ),
    (
        r"stock|quantity|amount|number|count|inhabitants|population|pieces",
        ("How many {name} are there?", "How many {name} are in {label}?", "How many of {the} are left?"),
    ),
    (
        r"years|days|weeks|months|hours|minutes",
        ("How many {label} does {the} keep?", "How many {label} is it for {the}?", "How long does {the} last?"),
    ),
    (
        r"warranty|duration|length|time\b|guarantee",
        ("How long is the {label} of {the}?", "How long does the {label} of {the} last?", "How long is {the}?"),
    ),
    (
        r"date|day\b|when|founded|born|year\b|opening|start|released",
        ("When is {the}?", "When was {the}?", "When was {the} {label}?", "What is the date of {the}?"),
    ),
    (
        r"person|author|contact|responsible|manager|owner|mayor|leader|chair|supplier|who|director|teacher|name",
        ("Who is the {label} of {the}?", "Who looks after {the}?", "Who is responsible for {the}?", "Who does {name}?"),
    ),
    (
        r"telephone|phone|mail",
        ("What is the number for {the}?", "How do I reach {the}?", "Whom do I call about {the}?"),
    ),
    (
        r"category|type|kind|group|class|genre|language",
        ("Which {label} is {the} in?", "What {label} is {the}?", "Which {label} does {the} belong to?"),
    ),
    (
        r"meaning|description|cause|definition|answer|summary|purpose|use",
        ("What is {name}?", "What does {name} mean?", "What is {name} for?", "What does {name} do?"),
    ),
    (
        r"remedy|solution|fix|treatment",
        ("How do I fix {name}?", "What helps against {name}?", "What to do about {name}?"),
    ),
)
"""Patterns of labels, and how people ask for such a field; ``{the}`` is the record's name, often with an article."""

ANY_FIELD = (
    *("What is the {label} of {the}?", "{label} of {the}", "{name} {label}", "Which {label} does {the} have?"),
    *("What {label} has {the}?", "Tell me the {label} of {the}", "the {label} of {the}?"),
)
DEFINED = (
    *("What is {name}?", "What does {name} mean?", "What is {a}?", "{name}?", "what is {name}", "Explain {name}"),
    *("Tell me about {name}", "What does {name} do?", "What is meant by {name}?", "What is the meaning of {name}?"),
)
ABOUT_HEADING = (
    *("What about {name}?", "What does it say about {name}?", "Tell me about {name}", "{name}?", "What is {name}?"),
    *("How does {name} work?", "What should I know about {name}?", "How is it with {name}?", "How do I do {name}?"),
)

_FIELD = re.compile(r"(?P<label>[^\W\d_][^:.!?\n]{0,40}): (?P<value>\S.*)", re.DOTALL)
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_WHEN = re.compile(
    r"\b(?:(?:on|in|at|from|until|since|by|before|after|during|between) )?(?:the )?(?:\w+ )?(?:\d{1,2}\.? )?"
    rf"(?:{_MONTH}|{_DAY}"
    r"|1\d{3}\b|20\d{2}\b|spring|summer|autumn|winter|morning|evening|afternoon|noon|midnight|o'clock)\b"
)
_OFTEN = re.compile(r"\b(?:every|each|once a|twice a|weekly|daily|monthly|yearly)\b(?: \w+){0,2}")
_MONEY = re.compile(r"(?:[€$£] ?\d[\d.,]*|\b\d[\d.,]* (?:euros?|dollars?|pounds?|cents?|EUR|USD|kr)\b)")
_COUNT = re.compile(
    r"\b(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|fourteen|fifty|hundred|half a)"
    r" (?P<unit>[a-z]{3,})"
)
_PLACE = re.compile(
    r"\b(?:in|at|on|under|beside|behind|below|near|from|to) (?:a|an|the|our) (?:[a-z]+ ){0,2}?[a-z]{3,}"
)
_POINTERS = frozenset(("it", "there", "this", "that", "they", "he", "she", "if it"))
_SMALL = frozenset(
    """
    a an and are as at be been but by can for from had has have he her his if in is it its may more most no not of off
    on only or our out she so than that the their them then there they this to until up was we were which who with you
    your
    """.split()  # noqa: SIM905
)


def questions_about(
    title: str, sentence: str, pick: random.Random, *, first: bool = True, keywords: bool = True
) -> Iterator[str]:
    """Questions that a sentence below a title answers, the most natural first, each kind at most once.

    Args:
        title: the headings above it, e.g. "Prices > Basil"; the last one names what it is about.
        first: whether the sentence is the first below its title, and so answers a question about the title itself.
        keywords: also a question word with a few words of the sentence, which is rarely good English.
    """
    name = title.rpartition(" > ")[2]
    sentence = sentence[2:].strip() if sentence[:2] in ("- ", "* ", "+ ", "• ") else sentence
    field = _FIELD.fullmatch(sentence)
    if field and name and len(field["label"].split()) <= LONGEST_LABEL:
        yield from _about_field(name, field["label"], pick)
        return
    if name.endswith("?") and first:
        yield as_typed(name, pick)
    elif name and first:
        yield as_typed(
            pick.choice(DEFINED if len(name.split()) < 4 else ABOUT_HEADING).format_map(_forms(name, pick)), pick
        )
    yield from _about_subject(sentence, pick)
    if keywords:
        yield from _by_keywords(name, sentence, pick)


def _about_field(name: str, label: str, pick: random.Random) -> Iterator[str]:
    forms = _forms(name, pick) | {"label": label[:1].lower() + label[1:]}
    for pattern, questions in FIELD_FORMS:
        if re.search(rf"\b(?:{pattern})", label, re.IGNORECASE):
            yield from (as_typed(question.format_map(forms), pick) for question in pick.sample(questions, 2))
    yield as_typed(pick.choice(ANY_FIELD).format_map(forms), pick)


def _forms(name: str, pick: random.Random) -> dict[str, str]:
    """The name as it is, with "the" and with "a", sometimes in lower case."""
    written = name if pick.random() < 0.7 or name.isupper() or not name.isascii() else name[:1].lower() + name[1:]
    named = len(name.split()) < 2 or pick.random() < 0.3
    article = "an" if written[:1].lower() in "aeiou" else "a"
    return {"name": written, "the": written if named else f"the {written}", "a": f"{article} {written}"}


def _about_subject(sentence: str, pick: random.Random) -> Iterator[str]:
    predicate = _done_by_a_person(sentence)
    if predicate:
        yield as_typed(f"Who {_words_up_to(predicate, 7)}?", pick)
    defined = None if predicate else _definition(sentence)
    if defined and defined[0].casefold() not in _POINTERS:
        subject = _without_article(defined[0], pick)
        who = re.match(r"[A-Z]\w+ [A-Z]\w+$", subject) is not None
        yield as_typed(f"{'Who' if who else 'What'} {defined[1]} {subject}?", pick)


def _by_keywords(name: str, sentence: str, pick: random.Random) -> Iterator[str]:
    answered = [
        (_OFTEN, ("How often", "How often", "When")),
        (_MONEY, ("How much", "How much", "What")),
        (_WHEN, ("When", "When", "In which month", "On which day", "What time")),
        (_PLACE, ("Where", "Where", "In which place")),
    ]
    for pattern, words in answered:
        match = pattern.search(sentence)
        if match:
            yield as_typed(
                _asked(pick.choice(words), name, sentence[: match.start()] + sentence[match.end() :], pick), pick
            )
    count = _COUNT.search(sentence)
    if count:
        rest = sentence[: count.start()] + sentence[count.end() :]
        word = pick.choice((f"How many {count['unit']}", f"How many {count['unit']}", "How much", "How long"))
        yield as_typed(_asked(word, name, rest, pick), pick)


def _asked(word: str, name: str, rest: str, pick: random.Random) -> str:
    """A question word with the subject that the rest of the sentence has, or words of it in their order."""
    defined = _definition(rest)
    if defined and pick.random() < 0.5:
        subject, verb, predicate = defined
        more = " ".join(predicate.rstrip(".").split()[: pick.randint(0, 2)])
        return f"{word} {verb} {_without_article(subject, pick)} {more}".rstrip() + "?"
    words = [text.strip(".,;:!?()[]\"'`*_") for text in rest.split()]
    telling = [text for text in words if text.casefold() not in _SMALL and len(text) > 2]
    kept = sorted(pick.sample(range(len(telling)), min(len(telling), pick.randint(1, 3))))
    words = [telling[number] for number in kept]
    if name and pick.random() < 0.4:
        words.insert(0, name)
    verb = pick.choice(("is", "does", "do", "are", "is the", "does the", "do I", "can I"))
    return f"{word} {verb} {' '.join(words)}?"


def _done_by_a_person(sentence: str) -> str:
    """What follows two capitalised words at the beginning: "Anna Berg keeps the keys." → "keeps the keys."; else ""."""
    first, _, rest = sentence.partition(" ")
    second, _, predicate = rest.partition(" ")
    named = first[:1].isupper() and second[:1].isupper() and f"{first}{second}".replace("-", "").isalpha()
    return predicate if named and predicate[:1].islower() else ""


def _definition(sentence: str) -> tuple[str, str, str] | None:
    """Subject, verb and predicate of "X is Y" where X has at most six words."""
    words = sentence.split()
    at = next((number for number, word in enumerate(words[:7]) if word in ("is", "are", "was", "were")), 0)
    if not at or at + 1 == len(words) or any(word[-1] in ",;:" for word in words[:at]):
        return None
    return " ".join(words[:at]), words[at], " ".join(words[at + 1 :])


def _without_article(subject: str, pick: random.Random) -> str:
    article, _, rest = subject.partition(" ")
    if article in ("The", "A", "An", "Our", "My", "Its") and rest:
        return rest if pick.random() < 0.3 else f"{article.lower() if article != 'Our' else 'the'} {rest}"
    return subject if pick.random() < 0.6 else subject[:1].lower() + subject[1:]


def _words_up_to(text: str, most: int) -> str:
    return " ".join(re.split("[,;:]", text, maxsplit=1)[0].rstrip(".").split()[:most])
