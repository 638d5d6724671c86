"""Question generation from facts: the questions that a field, a definition or a sentence of a document answers.

By rules on the surface of the text, as in early question generation (Heilman & Smith 2010, without a parser): the label
of a field, the heading, "X is …", and what a sentence names (a person, a date, a place, a number) choose the form. The
questions teach which sentence answers which kind of question; they need not be elegant.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from underhood.data.fact_forms import field_questions, heading_question, label_of
from underhood.data.question_forms import as_typed
from underhood.data.sentence_parts import PREPOSITIONS, VERBS, Clause, asked_about, base_form, clause_of, words_between

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
_POINTERS = frozenset("it there this that they he she we you these those one nobody anybody everybody".split())  # noqa: SIM905
_NO_DEFINITION = frozenset("due open closed ready free full empty on in at under not only never also then done".split())  # noqa: SIM905
_PARTICIPLES = frozenset("drawn given held kept lent made sent taken".split())  # noqa: SIM905
_ADVERBS = frozenset("again away back clean each every off once only out twice up".split())  # noqa: SIM905
_NO_PLACES = frozenset(
    """
    middle end beginning start morning evening week day year month time rest way case same first last whole
    """.split()  # noqa: SIM905
)
_TIME_UNITS = frozenset("second minute hour day week month year night".split())  # noqa: SIM905
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
    if field and name and (label := label_of(field["label"])):
        yield from field_questions(name, label, pick)
        return
    clause = clause_of(sentence)
    if name.endswith("?") and first:
        yield as_typed(name, pick)
    elif name and first:
        yield heading_question(name, sentence, _defines(name, sentence, clause), pick)
    yield from _about_subject(sentence, clause, pick)
    if keywords:
        yield from _by_keywords(name, sentence, clause, pick)


def _defines(name: str, sentence: str, clause: Clause | None) -> bool:
    """Whether a sentence says what a name is: "Compost is rotted waste", or below "Reef" just "A file that …"."""
    opening = sentence.split()[0] if sentence else ""
    if clause is None or not clause.states:
        return opening in ("A", "An") or opening[:1].islower()
    subject, named = clause.subject.casefold().split()[-1], name.casefold().split()[-1]
    return is_a(clause) and (subject == named or subject.rstrip("s") == named.rstrip("s"))


def is_a(clause: Clause) -> bool:
    """Whether "X is Y" says what X is, not how or where it is or what is done with it."""
    words = clause.rest.casefold().split()
    if not clause.states or not words or words[0] in _NO_DEFINITION:
        return False
    participle = words[0].endswith("ed") or words[0] in _PARTICIPLES
    after = words[1] if len(words) > 1 else ""
    done = participle and (not after.isalpha() or after in PREPOSITIONS or after in _ADVERBS or after.endswith("ly"))
    return not done or words[:2] == ["made", "of"] or words[:1] == ["called"] or words[:2] == ["used", "for"]


def _about_subject(sentence: str, clause: Clause | None, pick: random.Random) -> Iterator[str]:
    predicate = _done_by_a_person(sentence)
    if predicate:
        yield as_typed(f"Who {_words_up_to(predicate, 7)}?", pick)
    elif clause is not None and is_a(clause) and clause.subject.split()[-1].casefold() not in _POINTERS:
        who = re.match(r"[A-Z]\w+ [A-Z]\w+$", clause.subject) is not None
        yield as_typed(f"{'Who' if who else 'What'} {clause.verb} {asked_about(clause.subject, pick)}?", pick)


def _by_keywords(name: str, sentence: str, clause: Clause | None, pick: random.Random) -> Iterator[str]:
    """Questions for what a sentence names: how often, how much, when, where, how many."""
    taken: list[tuple[int, int]] = []
    questions: list[str] = []
    for pattern, words in (
        (_OFTEN, ("How often", "How often", "When")),
        (_MONEY, ("How much",)),
        (_WHEN, ("When",)),
        (_PLACE, ("Where",)),
    ):
        matches = list(pattern.finditer(sentence))
        if pattern is _PLACE:
            matches = [match for match in matches if match[0].split()[-1] not in _NO_PLACES]
        spans = [match.span() for match in matches]
        free = [(start, end) for start, end in spans if all(end <= other or rest <= start for other, rest in taken)]
        if free:
            taken += spans
            questions.append(_asked(pick.choice(words), name, sentence, free[0], clause, pick))
    count = _COUNT.search(sentence)
    if count and clause is not None and all(count.end() <= start or end <= count.start() for start, end in taken):
        unit = count["unit"]
        word = "How long" if unit.rstrip("s") in _TIME_UNITS else f"How many {unit}"
        questions.append(_asked(word, name, sentence, count.span(), clause, pick))
    yield from (as_typed(question, pick) for question in questions if question)


def _asked(
    word: str, name: str, sentence: str, answer: tuple[int, int], clause: Clause | None, pick: random.Random
) -> str:
    """A question word with the sentence's own subject and verb, or with words of it as people type them into a search.

    "" where there are too few words.

    Args:
        answer: where in the sentence the answer is.
    """
    start, end = answer
    verb_at = 0 if clause is None else len(clause.subject) + 1 + len(clause.verb)
    between = sentence[verb_at:start]
    told = clause is not None and start >= verb_at and not re.search("[,;:]", between)
    counted = word.startswith("How many") or word == "How long"
    if counted and words_between(between) and not (clause and clause.states):
        return ""  # the verb is about something else
    if clause is not None and told and clause.subject.split()[-1].casefold() not in _POINTERS and pick.random() < 0.85:
        subject, more = asked_about(clause.subject, pick), words_between(between)
        if clause.states:
            return f"{word} {clause.verb} {subject} {more}".rstrip() + "?"
        return f"{word} does {subject} {base_form(clause.verb)} {more}".rstrip() + "?"
    if counted:
        return ""
    rest = sentence[:start] + " " + sentence[end:]
    words = [text.strip(".,;:!?()[]\"'`*_") for text in rest.split()]
    telling = [text for text in words if text.casefold() not in _SMALL and len(text) > 2]
    if len(telling) < 2:
        return ""
    kept = sorted(pick.sample(range(len(telling)), min(len(telling), pick.randint(2, 3))))
    named = [name] if name and pick.random() < 0.5 else []
    return " ".join([word, *named, *(telling[number] for number in kept)])


ABOUT_WORDS = ("What about {words}?", "What does it say about {words}?", "Tell me about {words}", "Explain {words}")
"""Questions about two words that are side by side in a sentence; others are typed as they are, as into a search."""

SHORT_WORDS = 4
"""Letters below which a word of a sentence is not asked about."""

_EMPTY_WORDS = frozenset(
    """
    after against also because been before between both cannot could does each even every everything from have into
    less many more most much never only other over same should some such than that their them then there these they this
    those through under until usually very were what when where which while whoever will with without would your
    """.split()  # noqa: SIM905
)


def question_by_words(sentence: str, pick: random.Random) -> str | None:
    """A question that names two to four words of a sentence in their order; None for a sentence of few words."""
    words = [word.strip(".,;:!?()[]\"'`*_") for word in sentence.split()]
    telling = [n for n, word in enumerate(words) if len(word) >= SHORT_WORDS and word.casefold() not in _EMPTY_WORDS]
    if len(telling) < 3:
        return None
    pairs = [n for n in telling if n + 1 in telling and not any(map(_is_verbal, words[n : n + 2]))]
    if pairs and pick.random() < 0.25:
        first = pick.choice(pairs)
        return as_typed(pick.choice(ABOUT_WORDS).format(words=" ".join(words[first : first + 2])), pick)
    drawn = sorted(pick.sample(telling, min(len(telling), pick.randint(2, 4))))
    return as_typed(" ".join(words[number] for number in drawn) + pick.choice(("", "?")), pick)


def _is_verbal(word: str) -> bool:
    """Whether a word can't be in a noun phrase: a frequent verb, an adverb."""
    return word in VERBS or word.endswith("ly")


def is_field(title: str, sentence: str) -> bool:
    """Whether a sentence below a title is a field with its value: "Price: 12 €."."""
    field = _FIELD.fullmatch(sentence)
    return bool(field and title and label_of(field["label"]))


def _done_by_a_person(sentence: str) -> str:
    """What follows two capitalised words at the beginning: "Anna Berg keeps the keys." → "keeps the keys."; else ""."""
    first, _, rest = sentence.partition(" ")
    second, _, predicate = rest.partition(" ")
    named = first[:1].isupper() and second[:1].isupper() and f"{first}{second}".replace("-", "").isalpha()
    named = named and first.casefold() not in PREPOSITIONS and predicate.split(" ")[0] not in ("and", "or", "of")
    return predicate if named and predicate[:1].islower() else ""


def _words_up_to(text: str, most: int) -> str:
    return " ".join(re.split("[,;:]", text, maxsplit=1)[0].rstrip(".").split()[:most])
