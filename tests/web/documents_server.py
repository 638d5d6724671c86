"""A server over tiny models with documents, for the tests of retrieval in the API and on the page."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from live_server import SPEC, Live, serving
from tiny_run import make_run

from underhood.retrieve.index import PassageIndex
from underhood.retrieve.passages import Passage
from underhood.web.documents import RetrievalSettings
from underhood.web.registry import ModelRegistry
from underhood.web.settings import ServeSettings

JOIN = Passage(
    title="os.path.join",
    text="Join two or more pathname components. Parameters: `a` and `*p`.",
    source="module os.path",
)
DEDENT = Passage(
    title="textwrap.dedent", text="Remove any common leading whitespace from every line.", source="module textwrap"
)
LISTS = Passage(
    title="Tour > Lists",
    text="Ünïcödé 🙂: a list can be sorted; sorting keeps the order of equals.",
    source="tour.md",
    line=12,
)
PASSAGES = (JOIN, DEDENT, LISTS)
EXAMPLES = [
    {"question": "What does os.path.join do?", "answer": "`os.path.join`: Join.", "title": "os.path.join"},
    {"question": "parameters of textwrap.dedent", "answer": "`textwrap.dedent`: none.", "title": "textwrap.dedent"},
]
REFUSED = {
    "question": "What does math.fizzroot do?",
    "answer": "`math.fizzroot`: There is no such name.",
    "model": "sft",
}
NOTE = Passage(
    title="Kettle", text="The kettle is in the kitchen. It boils in three minutes.", source="notes/home.md", line=3
)


@contextlib.contextmanager
def documents_server(
    folder: Path, *, retrieval: RetrievalSettings | None = None, notes: bool = False, **settings: Any
) -> Iterator[Live]:
    """Serves a run ``taught`` whose SFT model was trained to use its own index; with `notes` also an index of one
    note that every request may name.
    """
    run = make_run(folder / "runs" / "taught", stages=("base", "sft"), context=512, retrieval="taught")
    PassageIndex.build(PASSAGES).save(run / "passages.index")
    (run / "summary.json").write_text(json.dumps({"examples": EXAMPLES, "refused": REFUSED}), encoding="utf-8")
    if notes:
        PassageIndex.build([NOTE]).save(folder / "notes.index")
        retrieval = RetrievalSettings(index=folder / "notes.index")
    given = {"port": 0, "feedback": folder / "feedback.db", "drain_seconds": 5.0, "runs": folder / "runs"} | settings
    registry = ModelRegistry.open([run], spec=SPEC, retrieval=retrieval or RetrievalSettings())
    with serving(registry, ServeSettings(**given)) as live:
        yield live
