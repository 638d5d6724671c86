"""`UserError`, the exception for mistakes that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: wrong input, wrong option, full disk, broken file.

    The command line prints it as one line and exits with code 2; a program that uses the library sees an
    ordinary exception. Bugs of ours must never be dressed up as a `UserError`.

    Args:
        what: what happened, without a full stop, e.g. ``"data.jsonl line 3 is not JSON"``.
        expected: what was expected instead.
        got: what was found, if `what` does not already say it.
        fix: how to mend it, a full sentence without its full stop; None or "" for nothing to say.
    """

    def __init__(self, what: str, *, expected: str | None = None, got: str | None = None, fix: str | None = None):
        self.what, self.expected, self.got, self.fix = what, expected, got, fix
        parts = [what]
        if expected is not None and got is not None:
            parts.append(f"expected {expected}, got {got}")
        elif expected is not None:
            parts.append(f"expected {expected}")
        elif got is not None:
            parts.append(f"got {got}")
        message = "; ".join(" ".join(phrase.split()) for phrase in parts)
        if fix:
            message += ". " + " ".join(fix.split())
        super().__init__(message if message.endswith("?") else message.rstrip(".") + ".")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, or None when nothing is close (difflib ratio below 0.5)."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return matches[0] if matches else None
