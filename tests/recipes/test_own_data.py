"""Own data that answers: a short build of a folder, asked natural questions that were written before any training."""

from __future__ import annotations

from pathlib import Path

import pytest

import underhood
from needs import REPOSITORY
from underhood.data.instruct import is_refusal
from underhood.infer.sample import SamplingSpec
from underhood.recipes.build import build
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec

OWN_DATA = REPOSITORY / "tests" / "own_data"
STEPS = {"pretrain": {"steps": 20}, "sft": {"steps": 60}, "dpo": {"steps": 1}}
"""Fewer than a minute gives on a laptop: 160,000 tokens in all."""


@pytest.mark.slow
def test_short_build_of_a_table_answers_six_of_ten_questions_with_their_file_and_refuses_the_rest(tmp_path):
    run = Run.create(tmp_path / "shop", BuildSpec(data=str(OWN_DATA / "shop"), minutes=1, stages=STEPS))
    build(run)
    loaded = underhood.load(run.path)
    retriever = underhood.open_retriever(loaded)
    right = refused = 0
    for line in (OWN_DATA / "questions.tsv").read_text().splitlines():
        if not line.startswith("shop\t"):
            continue
        _, question, accepted, file = line.split("\t")
        prepared = retriever.prepare([{"role": "user", "content": question}])
        conversation = loaded.conversation(prepare=lambda _, prepared=prepared: prepared)
        answer = "".join(conversation.reply(question, max_new_tokens=96, sampling=SamplingSpec(temperature=0.0)))
        if accepted == "-":
            refused += is_refusal(answer)
        else:
            cited = {Path(citation.passage.source).name for citation in prepared.citations(answer)}
            right += accepted in answer and cited == {file} and answer.count(": ") <= 3
    assert right >= 6
    assert refused == 5
    summary = run.note("summary")
    assert len(summary["examples"]) >= 3
    assert all("products.csv, line " in example["source"] for example in summary["examples"])
    assert is_refusal(summary["refused"]["answer"])
