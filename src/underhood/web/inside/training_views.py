"""Panels of training: what every checkpoint of a run makes of the prompt, and how its heads become induction heads.

All checkpoints are read into one module, in the order of training; see `inspect.through_training`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import read_out
from underhood.inspect.through_training import SavedModel, TraceView, through_training
from underhood.inspect.trace import Trace
from underhood.inspect.training_views import induction_view, logprobs_of
from underhood.web.inside.packing import Payload, exact, half, whole
from underhood.web.inside.stream_views import likeliest
from underhood.web.inside.subjects import InsideModels, ModelChoice, Subject
from underhood.web.token_view import token_facts


def training(subject: Subject, *, position: int) -> Payload:
    """The next token through training: its probability after every token, and after one that of every layer's lens.

    Which token is followed: the one that comes next in the prompt, and at its end the one that this model finds
    likeliest.
    """
    models, run = _run_of(subject)
    at, last = subject.at(position), len(subject.ids) - 1
    followed = [*subject.ids[1:], likeliest(subject, last)]

    @torch.no_grad()
    def values(loaded: LoadedModel, recorded: Trace) -> tuple[Tensor, Tensor, Tensor, int]:
        logprobs_TV = logprobs_of(loaded, recorded)
        lens_LV = read_out(loaded.decoder, recorded.layers("residual")[:, at]).softmax(dim=-1)
        own_L = lens_LV[:, followed[at]]
        ranks_L = (lens_LV > own_L[:, None]).sum(dim=-1) + 1
        own_T = logprobs_TV.gather(1, torch.tensor(followed)[:, None])[:, 0].exp()
        return own_T, own_L, ranks_L, int(lens_LV[-1].argmax())

    history = through_training(run, subject.ids, TraceView(("residual",), values))
    own, lens, ranks, best = zip(*history.values, strict=True)
    tokenizer = subject.loaded.tokenizer
    facts = {
        "ids": [_id_of(models, run, checkpoint) for checkpoint in history.checkpoints],
        "position": at,
        "followed": [token_facts(tokenizer, id)["shown"] for id in followed],
        "best": [token_facts(tokenizer, id)["shown"] for id in best],
    }
    arrays = {"probabilities": exact(torch.stack(own)), "lens": exact(torch.stack(lens))}
    return Payload(facts, arrays | {"ranks": whole(torch.stack(ranks))})


def training_induction(subject: Subject) -> Payload:
    """Induction scores of every head through training, on the same repeated random tokens."""
    models, run = _run_of(subject)
    history = through_training(run, subject.ids, induction_view())
    last = history.values[-1]
    facts = {
        "ids": [_id_of(models, run, checkpoint) for checkpoint in history.checkpoints],
        "layers": list(last.layers),
        "saved": [each.first_loss - each.second_loss for each in history.values],
        "strongest": last.strongest(count=3),
    }
    return Payload(facts, {"scores": half(torch.stack([each.induction for each in history.values]))})


def _run_of(subject: Subject) -> tuple[InsideModels, Path]:
    if subject.others is None or subject.choice.run is None:
        raise UserError(
            "this model has no checkpoints of its training here", expected="a run, as underhood build makes it"
        )
    return subject.others, subject.choice.run


def _id_of(models: InsideModels, run: Path, checkpoint: SavedModel) -> str:
    """By which name the page knows a checkpoint; empty for one that was made after the page was opened."""

    def same(choice: ModelChoice) -> bool:
        return (choice.stage, choice.step) == (checkpoint.stage, checkpoint.step)

    return next((choice.id for choice in models.of_run(run) if same(choice)), "")
