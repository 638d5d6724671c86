"""Beam search against transformers' and against all texts there are."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.beam import BeamSpec, StopRule, beam_search, beam_search_batch
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.ngram import NGramSpec

VOCAB, CONTEXT = 40, 64
STOPS = [1, 5]


@pytest.fixture(scope="module")
def pair() -> tuple[Decoder, Any]:
    """The same random weights here and in transformers."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from underhood.models.hub_weights import load_decoder

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        initializer_range=0.6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    peer = Qwen3ForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        mine = load_decoder(Path(folder))
    return mine.eval(), peer


@pytest.mark.parametrize("stop", ["full", "likely", "certain"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5, 2.0])
def test_beam_search_matches_transformers(pair: tuple[Decoder, Any], length_penalty: float, stop: StopRule) -> None:
    mine, peer = pair
    finishes = set()
    for seed, beams in ((1, 4), (2, 3), (3, 5), (4, 1)):
        prompt = torch.randint(VOCAB, (1, 5), generator=torch.Generator().manual_seed(seed))
        options = {"num_beams": beams, "num_return_sequences": beams} if beams > 1 else {}
        expected = peer.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=STOPS,
            length_penalty=length_penalty,
            early_stopping={"full": True, "likely": False, "certain": "never"}[stop],
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        for cache in (True, False):
            actual = beam_search(
                mine,
                prompt[0].tolist(),
                BeamSpec(beams=beams, length_penalty=length_penalty, stop=stop),
                n=beams,
                max_new_tokens=12,
                stop_ids=STOPS,
                cache=cache,
            )
            texts = [
                [*completion.ids, *([] if completion.stop_id is None else [completion.stop_id])]
                for completion in actual
            ]
            theirs = [row[5 : 5 + len(text)].tolist() for row, text in zip(expected.sequences, texts, strict=True)]
            assert texts == theirs
            if beams > 1:
                assert [completion.score for completion in actual] == pytest.approx(
                    expected.sequences_scores.tolist(), abs=1e-4
                )
        finishes |= {completion.finish for completion in actual}
    assert finishes == {"stop", "length"}


def all_texts(model: Decoder, prompt: list[int], room: int, stop: int, power: float) -> list[tuple[float, list[int]]]:
    """All texts of up to `room` tokens with their scores, best first."""
    others = [token for token in range(model.vocab_size) if token != stop]
    texts = [[*body, stop] for size in range(room) for body in itertools.product(others, repeat=size)]
    texts += [list(body) for body in itertools.product(others, repeat=room)]
    scored = []
    for text in texts:
        logprobs = model(torch.tensor([prompt + text]))[0].log_softmax(-1)
        total = sum(float(logprobs[len(prompt) - 1 + at, token]) for at, token in enumerate(text))
        scored.append((total / len(text) ** power, text))
    return sorted(scored, reverse=True)


@torch.inference_mode()
def test_with_enough_beams_the_best_texts_of_all_are_found() -> None:
    spec = qwen3_shaped(vocab_size=5, context_length=16, d_model=16, layers=1, heads=2, kv_heads=1, d_ff=24)
    torch.manual_seed(3)
    model = spec.build().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    for power in (0.0, 1.0, -1.0):
        expected = all_texts(model, [0, 3], 3, stop=2, power=power)[:6]
        # Of four other tokens there are 16 beginnings of two: 64 beams hold them all, and every way to end.
        actual = beam_search(
            model, [0, 3], BeamSpec(beams=64, length_penalty=power), n=6, max_new_tokens=3, stop_ids=[2]
        )
        assert [[*completion.ids, *([2] if completion.stop_id is not None else [])] for completion in actual] == [
            completion for _, completion in expected
        ]
        assert [completion.score for completion in actual] == pytest.approx([score for score, _ in expected], abs=1e-5)
        # What the beams are for: one alone misses it.
        [greedy] = beam_search(model, [0, 3], BeamSpec(beams=1, length_penalty=power), max_new_tokens=3, stop_ids=[2])
        assert greedy.score <= actual[0].score


def test_one_beam_is_greedy_and_more_find_likelier_texts() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, seed=0)
    ngram = NGramSpec(vocab_size=tokenizer.vocab_size, order=3).build().fit([tokenizer.encode("The list a list b")])
    for each in (model, ngram):
        prompt = tokenizer.encode("The")
        [greedy] = generate(each, [prompt], max_new_tokens=10)
        [first] = beam_search(each, prompt, BeamSpec(beams=1), max_new_tokens=10)
        assert (first.ids, first.finish) == (greedy.ids, greedy.finish)
        assert first.logprobs == pytest.approx(greedy.logprobs, abs=1e-4)
        several = beam_search(each, prompt, BeamSpec(beams=8), n=8, max_new_tokens=10)
        assert len({tuple(actual.ids) for actual in several}) == 8
        assert several[0].score >= first.score
        assert [actual.score for actual in several] == sorted((actual.score for actual in several), reverse=True)
        assert several[0].score == pytest.approx(sum(several[0].logprobs) / 10, abs=1e-5)


def test_the_context_and_no_room_end_the_search() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, seed=0, context=12)
    [actual] = beam_search(model, list(range(10)), BeamSpec(beams=3), max_new_tokens=99)
    assert (len(actual.ids), actual.finish) == (3, "length")
    assert beam_search(model, [1], BeamSpec(beams=3), max_new_tokens=0) == []
    with pytest.raises(UserError, match="the number of beams is out of range"):
        beam_search(model, [1], BeamSpec(beams=2), n=3)
    with pytest.raises(ValueError, match="beams must be at least 1"):
        BeamSpec(beams=0)


@pytest.mark.parametrize("stop", ["full", "likely", "certain"])
def test_prompts_side_by_side_get_what_each_gets_alone(pair: tuple[Decoder, Any], stop: StopRule) -> None:
    mine, _ = pair
    draw = torch.Generator().manual_seed(9)
    prompts = [torch.randint(VOCAB, (length,), generator=draw).tolist() for length in (3, 7, 1, 5, 5)]
    spec, options = BeamSpec(beams=3, length_penalty=0.6, stop=stop), {"n": 3, "max_new_tokens": 9, "stop_ids": STOPS}
    together = beam_search_batch(mine, prompts, spec, **options)  # type: ignore[arg-type]
    for prompt, hypotheses in zip(prompts, together, strict=True):
        alone = beam_search(mine, prompt, spec, **options)  # type: ignore[arg-type]
        assert [each.ids for each in hypotheses] == [each.ids for each in alone]
        assert [each.score for each in hypotheses] == pytest.approx([each.score for each in alone], abs=1e-5)
    assert len({len(hypotheses[0].ids) for hypotheses in together}) > 1  # some end before others


def test_gnmt_penalty_is_equation_14_and_bounds_what_a_beginning_can_become() -> None:
    spec = BeamSpec(length_penalty=0.6, penalty="gnmt")
    assert spec.score(-3.0, 7) == pytest.approx(-3.0 * 6**0.6 / 12**0.6)
    assert spec.score(-3.0, 1) == pytest.approx(-3.0)
    for penalty, alpha in itertools.product(("power", "gnmt"), (-0.5, 0.0, 0.6, 2.0)):
        spec = BeamSpec(length_penalty=alpha, penalty=penalty)  # type: ignore[arg-type]
        reachable = [spec.score(-3.0 - lost, length) for length in range(5, 21) for lost in (0.0, 0.1, 2.0)]
        assert spec.best_score(-3.0, 4, 20) == pytest.approx(max(reachable))
