"""Feedback over the API, and how it reaches alignment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Live, tiny_server

from tinyrun import underhood
from underhood.data.feedback import Feedback, FeedbackStore, read_feedback
from underhood.data.preferences import Pair
from underhood.recipes.feedback import mixed

ASK = [{"role": "user", "content": "What is a list?"}]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with tiny_server(tmp_path_factory.mktemp("feedback")) as live:
        yield live


def kept(live: Live) -> list[Feedback]:
    assert live.settings.feedback is not None
    return read_feedback(live.settings.feedback)


@pytest.mark.parametrize("stream", [False, True])
def test_answer_is_rated_by_its_id_with_the_full_exchange(live: Live, stream: bool):
    client = live.openai()
    answer = client.chat.completions.create(model="tiny", messages=ASK, n=2, seed=1, max_tokens=8, stream=stream)
    if stream:
        chunks = [*answer]
        id = chunks[0].id
        texts = ["", ""]
        for chunk in chunks:
            for piece in chunk.choices:
                texts[piece.index] += piece.delta.content or ""
    else:
        id, texts = answer.id, [choice.message.content for choice in answer.choices]
    body = {"id": id, "choice": 1, "rating": "down", "edit": "A sequence.", "comment": "too wild"}
    done = live.http().post("/v1/feedback", json=body)
    assert done.status_code == 201
    assert done.json() | {"id": 0} == {"id": 0, "model": "tiny:dpo", "rating": "down", "edited": True}
    last = kept(live)[-1]
    assert (last.model, last.messages, last.answer) == ("tiny:dpo", ASK, texts[1])
    assert (last.rating, last.edit, last.comment, last.completion) == ("down", "A sequence.", "too wild", id)


def test_completion_is_rated_by_its_id(live: Live):
    answer = live.openai().completions.create(model="base", prompt="The list", max_tokens=4)
    assert live.http().post("/v1/feedback", json={"id": answer.id, "rating": "up"}).status_code == 201
    assert kept(live)[-1].answer == answer.choices[0].text
    assert kept(live)[-1].messages == [{"role": "user", "content": "The list"}]


def test_exchange_may_be_given_whole(live: Live):
    body = {"id": "from elsewhere", "model": "sft", "messages": ASK, "answer": "Lists.", "rating": "up"}
    assert live.http().post("/v1/feedback", json=body).status_code == 201
    assert (kept(live)[-1].model, kept(live)[-1].answer) == ("tiny:sft", "Lists.")


def test_unknown_answer_is_a_404_and_unknown_choice_a_400(live: Live):
    http = live.http()
    assert http.post("/v1/feedback", json={"id": "chatcmpl-0", "rating": "up"}).status_code == 404
    answer = live.openai().chat.completions.create(model="tiny", messages=ASK, max_tokens=1)
    refused = http.post("/v1/feedback", json={"id": answer.id, "choice": 3, "rating": "up"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "choice")


def pair(chosen: str) -> Pair:
    return Pair(({"role": "user", "content": "?"},), chosen, "worse", "feedback", "")


def test_feedback_fills_at_most_half_of_what_alignment_reads():
    mine, others = [pair("a"), pair("b")], [pair(str(number)) for number in range(100)]
    actual = mixed(mine, others, reads=40, seed=0)
    assert len(actual) == 40
    assert [item.chosen for item in actual if item in mine] == ["a", "b"] * 4
    assert len({item.chosen for item in actual}) == 34
    assert len([item for item in mixed(mine * 15, others, reads=40, seed=0) if item in mine]) == 30
    assert mixed(mine, [], reads=40, seed=0) == mine * 4


def test_dpo_learns_from_a_file_of_feedback(copy_of_tiny_run: Path, tmp_path: Path):
    file = tmp_path / "feedback.db"
    store = FeedbackStore(file)
    store.add(Feedback(model="run:dpo", messages=ASK, answer="A thumb alone.", rating="up"))
    store.close()
    run = str(copy_of_tiny_run)
    done = underhood("dpo", run, "--feedback", str(file), "--restart", cwd=tmp_path)
    assert done.returncode == 2
    assert "no preference pair" in done.stderr
    store = FeedbackStore(file)
    store.add(Feedback(model="run:dpo", messages=ASK, answer="It is bad.", edit="It is good."))
    store.close()
    done = underhood("dpo", run, "--feedback", str(file), cwd=tmp_path)
    assert done.returncode == 2
    assert "--restart" in done.stderr
    done = underhood("dpo", run, "--feedback", str(file), "--restart", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (copy_of_tiny_run / "data" / "feedback.jsonl").read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("It is good.", "It is bad.")]
    assert "1 pairs from 2 opinions" in (copy_of_tiny_run / "events.jsonl").read_text()
    # The same feedback again is nothing new.
    done = underhood("dpo", run, "--feedback", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # And alignment without it forgets it.
    done = underhood("dpo", run, "--restart", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (copy_of_tiny_run / "data" / "feedback.jsonl").exists()
