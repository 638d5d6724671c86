"""Words of questions that say little or nothing about what is asked for."""

from __future__ import annotations

STOP_WORDS = frozenset(
    """
    a about also am an and any anyone are as at available be been being best but by bye can cannot could d did do does
    doing don done easiest easy either else evening ever example examples explain fast for from give gives go goes
    good got had having hello help hey hi how i if in into is isn it its just know let like ll m many may me mean
    means might more morning most much must my need needs no of off ok okay on or other our out own please python
    quick quickly re s shall should simple simplest so somebody someone something such t tell than thank thanks that
    the their them then there these they thing things this those through to too try trying up us use used uses using
    ve very via want wants was way ways we were what whats when where whether which while who whom whose why will with
    within without work works would you your yours
    """.split()  # noqa: SIM905
)
"""Words that are not searched for, greetings included."""

WEAK_WORDS = frozenset(
    """
    all another both certain couple different each every everything few five four full function get gets getting given
    has have its make makes making method new number numbers off old once one ones only over part piece put same
    several show shows some ten three two
    """.split()  # noqa: SIM905
)
"""Words that are searched for, for little: they help to tell passages apart that match otherwise."""

NEVER_NAMES = frozenset(
    """
    a an and anything are args argument arguments at bye can could did do does everything for from hello hey hi how i
    in into is it me my no of ok okay on one or parameter parameters please python so something such tell thank thanks
    that the there these they this those to us use used was we were what when where which who why will with would yes
    you your
    """.split()  # noqa: SIM905
)
"""Words that can't be names, whatever the form of the question: "what can you do" asks about no function *you*."""
