"""The lens, the parts of a score and patch sweeps beside TransformerLens 4, for two families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from traced import IDS, opened

import needs
from underhood.infer.load import LoadedModel
from underhood.inspect.contributions import SITES, contributions
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
from underhood.inspect.trace import trace

ANSWER, OTHER = 5, 11


@pytest.fixture(scope="module", params=["gpt2", "llama2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Any]:
    """One of our models, and transformers' in TransformerLens."""
    lens = needs.transformer_lens()
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    loaded, peer = opened(request.param, tmp_path_factory.mktemp(request.param))
    # It wants a tokenizer, though only ids are given to it.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), eos_token="b", pad_token="b"
    )
    bridge = lens.TransformerBridge.boot_transformers(
        request.param, hf_model=peer.eval(), tokenizer=tokenizer, device="cpu"
    )
    return loaded, bridge.eval()


@torch.no_grad()
def test_every_layer_of_the_lens(pair: tuple[LoadedModel, Any]):
    loaded, bridge = pair
    ours = logit_lens(loaded, trace(loaded, IDS), k=loaded.decoder.vocab_size)
    _, cache = bridge.run_with_cache(torch.tensor([IDS]))
    streams = cache.accumulated_resid(layer=None, incl_mid=False)[:, 0]
    theirs_LPV = bridge.unembed(bridge.ln_final(streams)).log_softmax(dim=-1)
    ours_LPV = torch.empty_like(theirs_LPV).scatter_(2, ours.ids, ours.probabilities.log())
    assert len(ours.ids) == len(streams)
    torch.testing.assert_close(ours_LPV, theirs_LPV, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_parts_of_a_score(pair: tuple[LoadedModel, Any]):
    loaded, bridge = pair
    ours = contributions(loaded, trace(loaded, IDS, SITES), ANSWER, against=OTHER)
    _, cache = bridge.run_with_cache(torch.tensor([IDS]))
    stack = cache.decompose_resid(layer=None, mode="all", pos_slice=-1)
    scaled = cache.apply_ln_to_stack(stack, layer=None, pos_slice=-1)[:, 0]
    direction = bridge.W_U[:, ANSWER] - bridge.W_U[:, OTHER]
    # It leaves out the last norm's weight here, and has position embeddings as a part of their own.
    theirs = (scaled * loaded.decoder.norm.weight) @ direction
    if len(theirs) > len(ours.values):
        theirs = torch.cat([theirs[:2].sum(dim=0, keepdim=True), theirs[2:]])
    torch.testing.assert_close(ours.values, theirs, rtol=1e-4, atol=1e-4)


def test_a_patch_sweep(pair: tuple[LoadedModel, Any]):
    loaded, bridge = pair
    source = [*IDS[:5], 77, *IDS[6:]]
    ours = patch_residual(loaded, source, IDS, answer=ANSWER, other=OTHER).differences
    with torch.no_grad():
        _, clean = bridge.run_with_cache(torch.tensor([source]))
        theirs = needs.transformer_lens().patching.get_act_patch_resid_pre(
            bridge, torch.tensor([IDS]), clean, lambda logits: logits[0, -1, ANSWER] - logits[0, -1, OTHER]
        )
    torch.testing.assert_close(ours[: len(theirs)], theirs, rtol=1e-4, atol=1e-5)
