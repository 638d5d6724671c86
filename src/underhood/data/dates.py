"""Dates as people write them, and as ISO 8601 does: an endless parallel corpus that is right by construction.

The task of many attention tutorials: short, with one right answer, and impossible without carrying single characters
from the source to other places of the target.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)


def date_pairs(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """`count` different dates of 1900 to 2099 in the forms of `FORMS`, each with its ISO form, in random order."""
    draw, pairs = random.Random(seed), dict[str, str]()
    while len(pairs) < count:
        day = FIRST + timedelta(days=draw.randrange((LAST - FIRST).days + 1))
        written = draw.choice(FORMS)(day)
        if draw.random() < 0.25:
            written = f"{draw.choice((DAYS[day.weekday()], DAYS[day.weekday()][:3]))}, {written}"
        written = draw.choice((written, written, written.lower(), written.upper()))
        pairs.setdefault(written, day.isoformat())
    return list(pairs.items())


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _month(day: date) -> str:
    return MONTHS[day.month - 1]


FORMS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day.day} {_month(day)} {day.year}",
    lambda day: f"{day.day} {_month(day)[:3]} {day.year}",
    lambda day: f"{day.day:02d} {_month(day)[:3]}, {day.year}",
    lambda day: f"{_month(day)} {day.day}, {day.year}",
    lambda day: f"{_month(day)[:3]} {day.day} {day.year}",
    lambda day: f"{_month(day)} {_ordinal(day.day)}, {day.year}",
    lambda day: f"the {_ordinal(day.day)} of {_month(day)} {day.year}",
    lambda day: f"{_ordinal(day.day)} {_month(day)[:3]}. {day.year}",
    lambda day: f"{day.day:02d}.{day.month:02d}.{day.year}",  # with points the day comes first
    lambda day: f"{day.day}.{day.month}.{day.year}",
    lambda day: f"{day.month}/{day.day}/{day.year}",  # with slashes the month, as in the United States
    lambda day: f"{day.year}, {_month(day)} {day.day}",
)
"""No two of them read the same text as different dates."""
