"""Rehearsal: the divergence from a model's own predictions, exact, zero at first, and holding the model to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from small_lora import model, stirred

from underhood.align.rehearsal import ANSWER_WEIGHT, READ_WEIGHT, RehearsalLoss, rehearsal_weights, remember
from underhood.align.sft import SFTLoss
from underhood.data.batch import IGNORE
from underhood.data.render import padded
from underhood.nn.lora import LoRASpec
from underhood.text.chat import Rendered

TAUGHT = Rendered([3, 1, 4, 1, 5], [False, False, False, True, True])
HELD = Rendered([2, 7, 1, 8, 2, 8], [False] * 3 + [True] * 3)


def test_a_rehearsed_example_has_a_reference_for_every_token_after_the_first():
    built = model()
    changed, reference_MD = remember(built, [TAUGHT, HELD, HELD], [False, True, True])
    assert changed[0] is TAUGHT
    size = built.vocab_size
    assert changed[1].targets == [IGNORE, *range(size, size + 5)]
    assert changed[2].targets == changed[1].targets  # the same text is kept once
    torch.testing.assert_close(reference_MD, built.hidden_states(torch.tensor([HELD.ids[:-1]]))[0].detach())


def test_a_beginning_that_all_share_is_rehearsed_once_and_rows_read_together_are_as_read_alone():
    built = model()
    other = Rendered([2, 7, 3, 3], [False, False, True, True])  # begins as HELD, two tokens long
    changed, reference_MD = remember(built, [HELD, other], [True, True])
    size = built.vocab_size
    targets = changed[1].targets
    assert targets is not None
    assert changed[0].targets == [IGNORE, *range(size, size + 5)]
    assert targets[:3] == [IGNORE] * 3  # what follows the first two tokens is held in the other text already
    assert len(reference_MD) == 5 + 1
    alone_TD = built.hidden_states(torch.tensor([other.ids[:-1]]))[0].detach()
    torch.testing.assert_close(reference_MD[targets[3] - size], alone_TD[2])


def test_answers_weigh_more_than_what_is_read():
    built = model()
    text = Rendered([5, 5, 6], [True] * 3)
    changed, reference_MD = remember(built, [TAUGHT, HELD, text], [False, True, True])
    weights_M = rehearsal_weights([TAUGHT, HELD, text], changed, built.vocab_size, len(reference_MD))
    assert weights_M.tolist() == [READ_WEIGHT] * 2 + [ANSWER_WEIGHT] * 3 + [READ_WEIGHT] * 2


def test_loss_before_training_is_that_of_the_answers_alone():
    built = model()
    changed, reference_MD = remember(built, [TAUGHT, HELD], [False, True])
    parameters = [parameter for parameter in built.parameters() if parameter.requires_grad]
    loss, metrics = RehearsalLoss(reference_MD)(built, padded(changed))
    alone, _ = SFTLoss()(built, padded([TAUGHT]))
    torch.testing.assert_close(loss, alone)
    assert metrics["answer_accuracy"] >= 5  # every rehearsed token is predicted as before
    ours, theirs = (torch.autograd.grad(each, parameters, allow_unused=True) for each in (loss, alone))
    for mine, expected in zip(ours, theirs, strict=True):
        if mine is not None and expected is not None:
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_divergence_matches_its_definition_after_the_model_has_changed():
    built = model()
    before_TV = built(torch.tensor([HELD.ids[:-1]]))[0].detach().softmax(-1)
    changed, reference_MD = remember(built, [HELD], [True])
    LoRASpec(rank=4).apply(built)
    stirred(built)
    loss, _ = RehearsalLoss(reference_MD, torch.full((5,), 0.5))(built, padded(changed))
    now_TV = built(torch.tensor([HELD.ids[:-1]]))[0].softmax(-1)
    expected = 0.5 * (before_TV * (before_TV.log() - now_TV.log())).sum()
    assert float(expected.detach()) > 0.01
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_training_with_rehearsal_changes_what_is_rehearsed_less():
    def drift(rehearse: bool) -> float:
        built = model()
        tokens = torch.tensor([HELD.ids[:-1]])
        before_TV = built(tokens)[0].detach().log_softmax(-1)
        changed, reference_MD = remember(built, [TAUGHT, HELD], [False, rehearse])
        LoRASpec(rank=4).apply(built)
        optimizer = torch.optim.Adam([p for p in built.parameters() if p.requires_grad], lr=0.03)
        batch = padded(changed if rehearse else changed[:1])
        loss_fn = RehearsalLoss(reference_MD)
        for _ in range(200):
            loss, _ = loss_fn(built, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taught, _ = SFTLoss()(built, padded([TAUGHT]))
        assert float(taught.detach()) < 5  # of 8 at first; so small a model can do no more without a change elsewhere
        return float(F.kl_div(built(tokens)[0].detach().log_softmax(-1), before_TV, log_target=True, reduction="sum"))

    assert drift(rehearse=True) < 0.3 * drift(rehearse=False)
