"""Documentation answers as a world of the gold-reward lab: questions of a run, judged by their passages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tinyrun import TINY, underhood
from tinytext import write_notes
from underhood.align.rewards import SampledAnswer
from underhood.core.errors import UserError
from underhood.data.instruct import NOT_THERE, is_refusal
from underhood.path.lib.documentation_world import SIZES, DocumentationLab
from underhood.path.lib.gold_lab import BEST_OF_N, GRPO

SMALL = replace(
    SIZES, pair_steps=2, pair_questions=8, policy=replace(SIZES.policy, steps=2, prompts=2, answers=2), measured=4
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation")
    write_notes(folder / "notes")
    done = underhood("build", "--data", "notes", "--out", "run", *TINY, "--context-length", "384", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
def test_right_answers_earn_everything_and_refusals_only_where_they_are_right(run: Path):
    world = DocumentationLab(run, 1, sizes=SMALL).lab.world
    for prompt in [*world.questions, *world.held_out]:
        expected = str(prompt.record["answer"])
        refused = world.gold([SampledAnswer(prompt.text, NOT_THERE, True, prompt.record)])
        if is_refusal(expected):
            assert refused == [2.0]
        else:
            assert refused == [0.5], "ended and short"
            assert world.gold([SampledAnswer(prompt.text, expected, True, prompt.record)])[0] >= 1.5, (
                "right, ended and short"
            )
    answered = [prompt for prompt in world.questions if not is_refusal(str(prompt.record["answer"]))]
    assert all(prompt.record["passage"] for prompt in answered)
    assert {is_refusal(str(prompt.record["answer"])) for prompt in world.questions} == {True, False}


@pytest.mark.slow
def test_every_seed_begins_with_the_runs_model_and_learns_from_other_questions(run: Path):
    labs = [DocumentationLab(run, seed, sizes=SMALL) for seed in (1, 2)]
    starts = [lab.start() for lab in labs]
    assert all(
        a.equal(b) for a, b in zip(starts[0].state_dict().values(), starts[1].state_dict().values(), strict=True)
    )
    orders = [[prompt.text for prompt in lab.lab.world.questions] for lab in labs]
    assert orders[0] != orders[1]
    assert [p.text for p in labs[0].lab.world.held_out] == [p.text for p in labs[1].lab.world.held_out]
    best = labs[0].aligned(starts[0], BEST_OF_N)
    assert [point.gold for point in best.curve[1:]] == sorted(point.gold for point in best.curve[1:])
    assert len(labs[0].aligned(starts[0], GRPO).gold_N) == len(labs[0].lab.world.held_out)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(UserError):
        DocumentationLab(tmp_path / "nothing", 1)
