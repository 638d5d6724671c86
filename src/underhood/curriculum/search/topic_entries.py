"""Search entries of the path: a milestone once, however many topics it covers, and the topics that are not written."""

from __future__ import annotations

from collections.abc import Iterator

from underhood.curriculum.index import covering, milestones
from underhood.curriculum.search.entries import SearchEntry
from underhood.curriculum.topics import topics


def topic_entries() -> Iterator[SearchEntry]:
    """Milestones in the order of the path, then the topics without one."""
    for milestone in milestones().values():
        covered = [topics()[id].title for id in milestone.topics]
        ids = " ".join(id.replace("-", " ") for id in milestone.topics)
        papers = [f"{paper.authors} {paper.title}" for paper in milestone.papers]
        yield SearchEntry(
            kind="milestone",
            target=milestone.stem,
            title=milestone.title,
            summary=milestone.question,
            other_names=(*covered, *milestone.topics, milestone.question, *milestone.asks),
            questions="\n".join([*milestone.asks, *covered, ids, *papers]),
            text="\n".join([milestone.idea, *(claim.statement for claim in milestone.claims)]),
            page=f"{milestone.stem}.html",
            see=f"underhood path show {milestone.stem}",
        )
    for topic in topics().values():
        if topic.id not in covering():
            yield SearchEntry(
                kind="topic",
                target=topic.id,
                title=topic.title,
                summary="",
                other_names=(topic.id,),
                questions=f"{topic.id.replace('-', ' ')} {topic.module}",
                page=f"#{topic.id}",
                see=f"underhood path to {topic.id}",
            )
