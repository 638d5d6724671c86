"""Human feedback on answers: stored in SQLite, turned into preference pairs.

An edited answer is preferred to the one that was edited; to the same question, an answer with thumbs up (or an edited
one) is preferred to every one with thumbs down. A thumb alone makes no pair: there is nothing to compare it with.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from underhood.core.errors import UserError
from underhood.core.files import storage_errors
from underhood.data.preferences import Pair
from underhood.text.chat import ROLES

Rating = Literal["up", "down"]

TABLE = """
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    model TEXT NOT NULL,
    messages TEXT NOT NULL,
    answer TEXT NOT NULL,
    rating TEXT CHECK (rating IN ('up', 'down')),
    edit TEXT,
    comment TEXT,
    completion TEXT
) STRICT
"""


INSERT = (
    "INSERT INTO feedback (time, model, messages, answer, rating, edit, comment, completion) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Feedback on one answer: the conversation, the answer, a thumb, an edited answer.

    Attributes:
        model: the id of the model that answered.
        messages: the conversation before the answer.
        rating: thumbs up or down, or None.
        edit: how the answer should have been, or None.
        completion: the answer's id, where it is known.
        time: Unix seconds.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    answer: str
    rating: Rating | None = None
    edit: str | None = None
    comment: str | None = None
    completion: str | None = None
    time: float = 0.0


class FeedbackStore:
    """Feedback in one SQLite file in WAL mode: a server may write while others read.

    Raises:
        UserError: the place can't be written, or the file is none of ours.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        with storage_errors(path, "Choose another file"):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open = sqlite3.connect(path, check_same_thread=False, timeout=10, isolation_level=None)
            self._open.execute("PRAGMA journal_mode = WAL")
            self._open.execute("PRAGMA synchronous = NORMAL")
            self._open.execute(TABLE)
        except sqlite3.Error as error:
            raise UserError(f"can't keep feedback in {path}: {error}", fix="Choose another file") from error

    def add(self, feedback: Feedback) -> int:
        """Stores one piece of feedback; returns its row number."""
        row = (
            feedback.time or time.time(),
            feedback.model,
            json.dumps(list(feedback.messages), ensure_ascii=False),
            feedback.answer,
            feedback.rating,
            feedback.edit,
            feedback.comment,
            feedback.completion,
        )
        with self._lock:
            try:
                done = self._open.execute(INSERT, row)
            except sqlite3.Error as error:
                raise UserError(f"can't write {self.path}: {error}", fix="Free some space") from error
        assert done.lastrowid is not None
        return done.lastrowid

    def close(self) -> None:
        with self._lock:
            self._open.close()


def read_feedback(path: Path) -> list[Feedback]:
    """All feedback of a file in order.

    Raises:
        UserError: no such file, or none of ours.
    """
    if not path.is_file():
        raise UserError(f"there is no feedback at {path}", fix="underhood serve keeps it while people rate answers")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as file:
            rows = file.execute(
                "SELECT time, model, messages, answer, rating, edit, comment, completion FROM feedback ORDER BY id"
            ).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{path} holds no feedback: {error}", expected="a file that underhood serve wrote") from error
    return [
        Feedback(
            time=row[0],
            model=row[1],
            messages=json.loads(row[2]),
            answer=row[3],
            rating=row[4],
            edit=row[5],
            comment=row[6],
            completion=row[7],
        )
        for row in rows
    ]


def feedback_pairs(feedback: Sequence[Feedback]) -> list[Pair]:
    """Preference pairs, each once, in the order of the feedback.

    Of several opinions on one answer the last counts. Conversations with functions are passed over: pairs are rendered
    in our own form, which has no such turns.
    """
    prompts: dict[str, tuple[dict[str, str], ...]] = {}
    ratings: dict[str, dict[str, Rating | None]] = {}
    edits: dict[str, dict[str, str]] = {}
    for opinion in feedback:
        prompt = _prompt(opinion.messages)
        if prompt is None:
            continue
        key = json.dumps(prompt)
        prompts[key] = prompt
        answer = opinion.answer.strip()
        if opinion.rating is not None:
            ratings.setdefault(key, {})[answer] = opinion.rating
        if opinion.edit is not None and opinion.edit.strip() and opinion.edit.strip() != answer:
            edits.setdefault(key, {})[answer] = opinion.edit.strip()
    pairs: list[Pair] = []
    for key, prompt in prompts.items():
        edited, rated = edits.get(key, {}), ratings.get(key, {})
        better = [
            *edited.values(),
            *(answer for answer, rating in rated.items() if rating == "up" and answer not in edited),
        ]
        worse = [answer for answer, rating in rated.items() if rating == "down"]
        compared = [(edit, answer) for answer, edit in edited.items()]
        compared += [(good, bad) for good in better for bad in worse]
        for chosen, rejected in dict.fromkeys(compared):
            # Somebody may have turned an answer down that somebody else wrote as an edit: that compares nothing.
            if chosen != rejected and (rejected, chosen) not in compared and rejected:
                pairs.append(Pair(prompt, chosen, rejected, "feedback", ""))
    return pairs


def _prompt(messages: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], ...] | None:
    if not messages or messages[-1].get("role") != "user":
        return None
    if any(message.get("role") not in ROLES or not isinstance(message.get("content"), str) for message in messages):
        return None
    if any(message["role"] == "system" for message in messages[1:]):
        return None
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)
