"""Parts of simple English sentences, by rules on their surface: subject, verb and what follows.

Only two shapes are read: "X is Y", and "X verbs Y" with one of a hundred frequent verbs. Any other sentence has no
parts, and questions about it are made of its words.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

LONGEST_SUBJECT = 6
"""Words of a subject at most."""

MOST_BETWEEN = 3
"""Words at most that go into a question with a verb."""

PREPOSITIONS = frozenset(
    """
    in on at to from with by for until till of under beside behind below near after before during since between about
    into onto over through without against along around as because if when while than
    """.split()  # noqa: SIM905
)
_PARTICLES = frozenset("on off out up in down away".split())  # noqa: SIM905
"""What belongs to a verb where another preposition follows: "is switched on at the box"."""

_OPENINGS = PREPOSITIONS | frozenset("and or but so then there here not only usually often sometimes".split())  # noqa: SIM905
_AUXILIARIES = ("is", "are", "was", "were")
VERBS = frozenset(
    """
    arrives asks attracts begins belongs blocks blooms boils burns buys carries changes checks closes comes consists
    contains controls cools copies costs counts covers creates cuts dates delivers depends drains draws drinks
    drives eats ends explains falls feeds fills finds fits flowers flows follows freezes gets gives goes grows hangs
    happens has heats helps holds includes keeps kills lasts learns leaves lends lets lists lives loads looks
    maintains makes marks measures meets melts moves needs occurs offers opens pays plays prepares prevents prints
    produces protects provides pumps rains reaches reads receives removes repairs replaces requires rests returns
    ripens runs saves sells sends serves shows sits sleeps smells sows speaks spreads starts stays stops stores
    supports takes teaches tells touches turns uses waits washes wears weighs works writes
    """.split()  # noqa: SIM905
)
_IRREGULAR = {"has": "have", "goes": "go", "does": "do"}


class Clause(NamedTuple):
    """A simple sentence.

    Attributes:
        verb: "is", "are", "was" or "were", or another verb as it is written.
        rest: everything behind the verb, without the full stop.
    """

    subject: str
    verb: str
    rest: str

    @property
    def states(self) -> bool:
        """Whether the verb is a form of "to be"."""
        return self.verb in _AUXILIARIES


def clause_of(sentence: str) -> Clause | None:
    """Subject, verb and rest of a simple sentence; None for any other."""
    words = sentence.split()
    for at, word in enumerate(words[: LONGEST_SUBJECT + 1]):
        before = words[:at]
        if word in _AUXILIARIES or (word in VERBS and words[at + 1 : at + 2] != ["of"]):
            simple = not any(text[-1] in ",;:" for text in before) and words[0].casefold() not in _OPENINGS
            return Clause(" ".join(before), word, " ".join(words[at + 1 :]).rstrip(".")) if at and simple else None
    return None


def base_form(verb: str) -> str:
    """The base of a verb in the third person: "takes" → "take", "washes" → "wash", "carries" → "carry"."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("ches", "shes", "sses", "xes", "zzes")) else verb[:-1]


def asked_about(subject: str, pick: random.Random) -> str:
    """A subject as it is in a question: "The heap" → "the heap", "Our heap" → "the heap", "Blades" → "blades"."""
    article, _, rest = subject.partition(" ")
    if article in ("The", "A", "An", "Our", "My", "Its", "This") and rest:
        written = "the" if article in ("Our", "My", "This") else article.lower()
        return rest if pick.random() < 0.15 else f"{written} {rest}"
    proper = re.match(r"\w+ [A-Z]|\w*[A-Z0-9]\w*[A-Z0-9]|[A-Z]\W", subject)
    return subject if proper or pick.random() < 0.3 else subject[:1].lower() + subject[1:]


def words_between(text: str) -> str:
    """The first words of a text up to a preposition, a comma or a bracket: what belongs to the verb before it."""
    kept: list[str] = []
    words = re.split(r"[,;:(]", text, maxsplit=1)[0].split()
    for number, word in enumerate(words[:MOST_BETWEEN]):
        particle = word in _PARTICLES and all(following in PREPOSITIONS for following in words[number + 1 : number + 2])
        if (word in PREPOSITIONS and not particle) or not word[0].isalpha():
            break
        kept.append(word)
    while kept and kept[-1] in ("the", "a", "an", "its", "their", "our", "only", "usually", "and", "or"):
        kept.pop()
    return " ".join(kept)
