"""Two runs beside each other, and values of one put into the other, beside passes with hooks and planted changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced import IDS, as_loaded, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.comparison import compare, find_changes
from underhood.inspect.contributions import contributions
from underhood.inspect.lens import divergence
from underhood.inspect.stage_patching import (
    SITES,
    ModelRun,
    join_models,
    patch_parts,
    patch_stage_residual,
    patch_tokens,
    swap_weights,
)
from underhood.inspect.trace import trace

ENDS = {"answer": 40, "other": 7}


def changed(loaded: LoadedModel, where: Callable[[str], bool], seed: int = 0) -> LoadedModel:
    """The model after a training that moved some of its weights."""
    model = copy.deepcopy(loaded.decoder)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if where(name):
            noise = torch.randn(parameter.shape, generator=generator) * (
                float(parameter.std()) if parameter.ndim > 1 else 0.3
            )
            parameter.data += 0.5 * noise
    return as_loaded(model, loaded.run)


def run_of(loaded: LoadedModel, ids: list[int] = IDS) -> ModelRun:
    return ModelRun(loaded, trace(loaded, ids, SITES))


def layers_of(run: ModelRun) -> int:
    return len(run.model.blocks)


def difference(loaded: LoadedModel, ids: list[int] = IDS) -> float:
    with torch.no_grad():
        logprobs_V = loaded.decoder(torch.tensor([ids]))[0, -1].log_softmax(dim=-1)
    return float(logprobs_V[40] - logprobs_V[7])


@pytest.fixture(scope="module", params=["gpt2", "llama2", "gemma2", "mixtral"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(request.param, tmp_path_factory.mktemp(request.param))[0]


@pytest.fixture(scope="module")
def runs(loaded: LoadedModel) -> tuple[ModelRun, ModelRun]:
    return run_of(loaded), run_of(changed(loaded, lambda _: True))


def test_a_run_beside_itself_differs_in_nothing(runs: tuple[ModelRun, ModelRun]):
    beside = compare(runs[0], runs[0])
    assert torch.equal(beside.relative, torch.zeros_like(beside.relative))
    assert torch.equal(beside.lens_kl, torch.zeros_like(beside.lens_kl))
    assert torch.allclose(beside.cosine, torch.ones_like(beside.cosine), atol=1e-5)
    with pytest.raises(UserError, match="predict the same"):
        find_changes(runs[0], runs[0])


def test_divergence_of_the_predictions_is_torch_s(runs: tuple[ModelRun, ModelRun]):
    beside = compare(*runs)
    tokens = torch.tensor([IDS])
    with torch.no_grad():
        before, after = (run.model(tokens)[0].log_softmax(dim=-1) for run in runs)
    expected = F.kl_div(before, after, reduction="none", log_target=True).sum(dim=-1) / torch.tensor(2.0).log()
    assert torch.allclose(beside.final_kl, expected, atol=1e-5)
    assert beside.relative.shape == beside.cosine.shape == beside.lens_kl.shape == (layers_of(runs[0]) + 1, len(IDS))
    stream = [run.trace["residual.1"][4] for run in runs]
    assert float(beside.relative[1, 4]) == pytest.approx(float((stream[1] - stream[0]).norm() / stream[0].norm()))


def test_ids_without_a_token_add_nothing_to_the_divergence():
    logprobs = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]).log()
    expected = 0.9 * torch.tensor(1.8).log() + 0.1 * torch.tensor(0.2).log()
    assert float(divergence(logprobs[1], logprobs[0])) == pytest.approx(float(expected))


def patched_pass(run: ModelRun, module: nn.Module, side: str, change: Callable[[Any], Any]) -> float:
    """The difference where a hook changes what goes into a module, or comes out of it."""
    if side == "input":
        handle = module.register_forward_pre_hook(lambda _m, inputs: (change(inputs[0].clone()), *inputs[1:]))
    else:
        handle = module.register_forward_hook(lambda _m, _i, output: change(output.clone()))
    try:
        return difference(run.loaded)
    finally:
        handle.remove()


def test_a_sweep_between_models_is_what_passes_with_hooks_give(runs: tuple[ModelRun, ModelRun]):
    first, second = runs
    sweep = patch_stage_residual(first, second, **ENDS)
    assert sweep.source == pytest.approx(difference(first.loaded), abs=1e-5)
    assert sweep.target == pytest.approx(difference(second.loaded), abs=1e-5)
    for layer, token in [(0, 3), (1, 3), (1, 11), (layers_of(first), 11)]:
        module = second.model.blocks[layer] if layer < layers_of(first) else second.model.norm

        def put(stream: Any, layer: int = layer, token: int = token) -> Any:
            stream[:, token] = first.trace[f"residual.{layer}"][token]
            return stream

        expected = patched_pass(second, module, "input", put)
        assert float(sweep.differences[layer, token]) == pytest.approx(expected, abs=1e-5)


def test_patched_parts_are_what_passes_with_hooks_give(runs: tuple[ModelRun, ModelRun]):
    first, second = runs
    patches = patch_parts(first, second, **ENDS)
    kinds = [f"{name}.{layer}" for layer in range(layers_of(first)) for name in ("mixer", "feedforward")]
    assert patches.names == ("embedding", *kinds)
    for kind in kinds:
        name, _, layer = kind.partition(".")
        module = second.model.blocks[int(layer)].get_submodule(f"{name}_residual")
        change = first.trace[kind] - second.trace[kind]
        expected = patched_pass(second, module, "output", lambda output, change=change: output + change)
        measured = float(patches.differences[patches.names.index(kind)])
        assert measured == pytest.approx(expected, abs=1e-5)


def test_patched_tokens_are_what_passes_with_hooks_give(runs: tuple[ModelRun, ModelRun]):
    first, second = runs
    patches = patch_tokens(first, second, **ENDS)
    assert patches.names == tuple(str(token) for token in range(len(IDS) - 1))

    def put(layer: int) -> Callable[..., Any]:
        def hook(_module: Any, inputs: Any) -> Any:
            stream = inputs[0].clone()
            stream[:, 5] = first.trace[f"residual.{layer}"][5]
            return (stream, *inputs[1:])

        return hook

    handles = [block.register_forward_pre_hook(put(layer)) for layer, block in enumerate(second.model.blocks)]
    expected = difference(second.loaded)
    for handle in handles:
        handle.remove()
    assert float(patches.differences[5]) == pytest.approx(expected, abs=1e-5)
    assert not any(block._forward_pre_hooks for block in second.model.blocks)


def test_swapped_weights_are_those_of_a_model_made_of_both(runs: tuple[ModelRun, ModelRun]):
    first, second = runs
    swapped = swap_weights(first, second, **ENDS)
    mixed = copy.deepcopy(second.model)
    for name in ("mixer_norm", "mixer", "mixer_post_norm"):
        if (module := mixed.blocks[0]._modules.get(name)) is not None:
            module.load_state_dict(first.model.blocks[0].get_submodule(name).state_dict())
    measured = float(swapped.differences[swapped.names.index("mixer.0")])
    assert measured == pytest.approx(difference(as_loaded(mixed, second.loaded.run)), abs=1e-5)
    assert {"unembedding", "embedding"} <= set(swapped.names)


def test_both_directions_begin_and_end_where_they_must(runs: tuple[ModelRun, ModelRun]):
    there, back = (join_models(*pair, **ENDS) for pair in (runs, runs[::-1]))
    assert (there.source, there.target) == (back.target, back.source)
    last = f"residual.{layers_of(runs[0])}"
    assert (there.names[0], there.names[-1]) == ("residual.0", last)
    # With all layers of the first model, only the norm and the unembedding are the second's.
    with torch.no_grad():
        logits_V = runs[1].model.unembed(runs[1].model.norm(runs[0].trace[last][-1]))
    assert float(there.differences[-1]) == pytest.approx(float(logits_V[40] - logits_V[7]), abs=1e-5)


def test_the_part_that_was_trained_is_the_one_that_changed(loaded: LoadedModel):
    first = run_of(loaded)
    second = run_of(changed(loaded, lambda name: name.startswith("blocks.1.mixer.")))
    changes = find_changes(first, second)
    assert changes.change > 0
    shares = {share.name: share for share in changes.parts}
    assert shares["mixer.1"].patched == pytest.approx(1.0, abs=1e-3)
    assert shares["mixer.1"].weights == pytest.approx(1.0, abs=1e-3)
    others = [share.weights for name, share in shares.items() if name != "mixer.1"]
    assert others == pytest.approx([0.0] * len(others), abs=1e-3)
    assert changes.layers[0].name == "layer 1"
    assert changes.layers[0].patched == pytest.approx(1.0, abs=1e-3)


def test_changes_name_the_tokens_that_gained_and_lost_most(runs: tuple[ModelRun, ModelRun]):
    changes = find_changes(*runs, position=6)
    tokens = torch.tensor([IDS])
    with torch.no_grad():
        before, after = (run.model(tokens)[0, 6].log_softmax(dim=-1) for run in runs)
    assert changes.answer == int((after.exp() * (after - before)).argmax())
    assert changes.other == int((before.exp() * (before - after)).argmax())
    assert changes.first == pytest.approx(float(before[changes.answer] - before[changes.other]), abs=1e-4)
    assert changes.second == pytest.approx(float(after[changes.answer] - after[changes.other]), abs=1e-4)
    assert changes.position == 6
    assert len(changes.tokens) == 6


def test_shares_of_layers_sum_to_the_whole_change(runs: tuple[ModelRun, ModelRun]):
    changes = find_changes(*runs)
    assert sum(share.patched for share in changes.layers) == pytest.approx(1.0, abs=1e-4)
    assert [share.patched for share in changes.layers] == sorted((s.patched for s in changes.layers), reverse=True)
    if runs[0].model.spec.logit_softcap is None:  # the parts add up to the score before the cap
        assert sum(share.direct or 0.0 for share in changes.layers) == pytest.approx(1.0, abs=1e-3)


def test_a_position_is_as_if_the_prompt_ended_there(runs: tuple[ModelRun, ModelRun]):
    shorter = [run_of(run.loaded, IDS[:7]) for run in runs]
    for experiment in (patch_stage_residual, patch_parts, patch_tokens, join_models, swap_weights):
        at_six, at_end = experiment(*runs, **ENDS, position=6), experiment(*shorter, **ENDS)
        assert torch.allclose(at_six.differences, at_end.differences, atol=1e-5)


def test_a_constant_on_all_scores_is_not_a_difference(loaded: LoadedModel):
    plain, second = run_of(loaded), as_loaded(copy.deepcopy(loaded.decoder), loaded.run)
    second.decoder.unembed.register_forward_hook(lambda _m, _i, output: torch.add(output, 3.0))
    shifted = run_of(second)
    assert float(compare(plain, shifted).final_kl.max()) < 1e-5
    scores = [contributions(run.loaded, run.trace, 40).score for run in (plain, shifted)]
    assert scores[0] == pytest.approx(scores[1])  # and the scores before the hook are the same


def test_soft_capped_scores_are_not_shift_invariant(tmp_path: Path):
    loaded, _ = opened("gemma2", tmp_path / "gemma2")
    cap = loaded.decoder.spec.logit_softcap
    assert cap is not None
    raw_V = torch.linspace(-cap, cap, 120)
    before, after = ((cap * ((raw_V + shift) / cap).tanh()).log_softmax(dim=-1) for shift in (0.0, 5.0))
    assert float(divergence(after, before)) > 0.01  # without a cap it would be 0
    # So log-probabilities are followed, which the cap has bent, and not the scores that parts add up to.
    loaded.decoder.unembed.weight.data *= 200
    runs = run_of(loaded), run_of(changed(loaded, lambda name: name.startswith(("embed", "unembed"))))
    changes = find_changes(*runs)
    ends = [contributions(run.loaded, run.trace, changes.answer, against=changes.other).score for run in runs]
    assert changes.change != pytest.approx(ends[1] - ends[0], rel=1e-3)


def test_models_of_another_shape_and_other_lengths_are_refused(loaded: LoadedModel, tmp_path: Path):
    deeper = loaded.decoder.spec.layers + 1
    spec = replace(loaded.decoder.spec, layers=deeper, blocks=(loaded.decoder.spec.blocks[0],))
    other = as_loaded(spec.build().eval(), tmp_path)
    with pytest.raises(UserError, match="differ in shape"):
        compare(run_of(loaded), run_of(other))
    with pytest.raises(UserError, match="equally many"):
        compare(run_of(loaded), run_of(loaded, IDS[:-1]))
    with pytest.raises(UserError, match="no token 12"):
        find_changes(run_of(loaded), run_of(changed(loaded, lambda _: True)), position=12)


def test_two_prompts_are_compared_like_two_models(loaded: LoadedModel):
    other = [*IDS[:3], 77, *IDS[4:]]
    first, second = run_of(loaded, other), run_of(loaded)
    assert float(compare(first, second).relative[0].count_nonzero()) == 1
    changes = find_changes(first, second)
    tokens = {share.name.split(" ")[1]: share.patched for share in changes.tokens}
    assert tokens["2"] == pytest.approx(0.0, abs=1e-4)  # before the token that differs, nothing does
    embedding = next(share for share in changes.parts if share.name == "embedding")
    assert embedding.patched == pytest.approx(1.0, abs=1e-4)
    assert embedding.weights is None  # both runs have the same


def test_results_show_themselves(runs: tuple[ModelRun, ModelRun]):
    beside, changes = compare(*runs), find_changes(*runs)
    assert "12 tokens" in repr(beside)
    assert changes.parts[0].name in repr(changes)
    for page in (beside._repr_html_(), changes._repr_html_()):
        assert page.startswith('<div class="underhood">')
        assert "nan" not in page
