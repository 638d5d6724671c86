"""Real Hugging Face folders read as transformers reads them, family by family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_peers import EXPERTS, PEERS, WINDOW, WINDOWED, V, relative, save_peer, tokens_of
from torch import Tensor

from underhood.core.checkpoint import load_module, module_tensors
from underhood.core.config import from_json, to_json
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.hub_weights import load_decoder
from underhood.nn import attention
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.moe import MoESpec
from underhood.nn.norm import RMSNormSpec

TOLERANCE = 1e-5
STEPS = 64


@dataclass
class Pair:
    folder: Path
    peer: Any
    ours: Decoder

    def theirs(self, tokens: Tensor, **more: Any) -> Tensor:
        return self.peer(tokens, use_cache=False, **more).logits


_MADE: dict[str, Pair] = {}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    def get(name: str) -> Pair:
        if name not in _MADE:
            folder = tmp_path_factory.mktemp(name)
            peer = save_peer(name, folder)
            _MADE[name] = Pair(folder, peer, load_decoder(folder))
        return _MADE[name]

    _MADE.clear()
    return get


@torch.no_grad()
@pytest.mark.parametrize("name", PEERS)
def test_import_logits_match_transformers(name: str, pairs: Callable[[str], Pair]) -> None:
    pair = pairs(name)
    tokens = tokens_of(2, 40)
    assert relative(pair.ours(tokens), pair.theirs(tokens)) < TOLERANCE
    assert pair.theirs(tokens).std() > 0.1  # an oracle that says nothing would agree with everything
    assert from_json(DecoderSpec, to_json(pair.ours.spec)) == pair.ours.spec


@torch.no_grad()
@pytest.mark.parametrize("name", PEERS)
def test_import_greedy_continuations_match_transformers_cached_and_not(name: str, pairs) -> None:
    pair = pairs(name)
    prompt = tokens_of(1, 11, seed=3)
    text = prompt
    cache = None
    fed = prompt
    for _ in range(STEPS):
        out = pair.peer(fed, past_key_values=cache, use_cache=True)
        cache, fed = out.past_key_values, out.logits[:, -1:].argmax(dim=-1)
        text = torch.cat((text, fed), dim=1)
    theirs = text[0, prompt.shape[1] :].tolist()
    assert len(set(theirs)) > 3
    [ours] = generate(pair.ours, prompt.tolist(), max_new_tokens=STEPS)
    assert ours.ids == theirs
    whole = pair.ours(text)  # what reading everything at once would have chosen
    assert whole[0, prompt.shape[1] - 1 : -1].argmax(dim=-1).tolist() == theirs


@torch.no_grad()
@pytest.mark.parametrize("name", PEERS)
def test_import_cached_in_chunks_matches_uncached(name: str, pairs) -> None:
    model = pairs(name).ours
    tokens = tokens_of(2, 30, seed=4)
    cache = ContiguousCache.for_model(model, 2, 30)
    parts = [model(piece, cache=cache) for piece in tokens.split((9, 1, 1, 7, 12), dim=1)]
    assert relative(torch.cat(parts, dim=1), model(tokens)) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", PEERS)
def test_import_left_padded_batch_matches_rows_alone_and_transformers(name: str, pairs) -> None:
    pair = pairs(name)
    lengths = (21, 5, 1, 13)
    rows = [tokens_of(1, length, seed)[0] for seed, length in enumerate(lengths)]
    width = max(lengths)
    tokens = torch.stack([torch.cat((torch.zeros(width - len(row), dtype=torch.long), row)) for row in rows])
    positions = torch.stack([torch.arange(width) - (width - length) for length in lengths]).clamp(min=-1)
    mask = (positions >= 0).long()
    batch = pair.ours(tokens, positions=positions)
    theirs = pair.theirs(tokens, attention_mask=mask, position_ids=positions.clamp(min=0))
    assert relative(batch[mask.bool()], theirs[mask.bool()]) < TOLERANCE
    for index, row in enumerate(rows):
        assert relative(batch[index, width - len(row) :], pair.ours(row[None])[0]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3])
def test_import_around_the_window_matches_transformers(name: str, length: int, pairs) -> None:
    pair = pairs(name)
    tokens = tokens_of(1, length + 1, seed=length)
    expected = pair.theirs(tokens)
    assert relative(pair.ours(tokens), expected) < TOLERANCE
    cache = ContiguousCache.for_model(pair.ours, 1, length + 1)
    pair.ours(tokens[:, :length], cache=cache)
    assert relative(pair.ours(tokens[:, length:], cache=cache)[:, 0], expected[:, length]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", EXPERTS)
def test_import_router_choices_match_transformers(name: str, pairs) -> None:
    pair = pairs(name)
    tokens = tokens_of(3, 20, seed=8)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    hooks = [
        piece.register_forward_hook(lambda m, i, out: ours.append(out[1])) for piece in _named(pair.ours, ".choice")
    ]
    hooks += [
        piece.register_forward_hook(lambda m, i, out: theirs.append(out[2])) for piece in _named(pair.peer, "mlp.gate")
    ]
    pair.ours(tokens)
    pair.theirs(tokens)
    for hook in hooks:
        hook.remove()
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)
        assert len(mine.unique()) > 2


def _named(model: Any, end: str) -> list[Any]:
    return [piece for name, piece in model.named_modules() if name.endswith(end)]


# Each idea taken away from a model that agrees: it must disagree.


def on_blocks(change: Callable[[BlockSpec], BlockSpec]) -> Callable[[DecoderSpec], DecoderSpec]:
    return lambda spec: replace(spec, blocks=tuple(change(block) for block in spec.blocks))


def on_attention(change: Callable[[AttentionSpec], dict[str, Any]]) -> Callable[[DecoderSpec], DecoderSpec]:
    return on_blocks(lambda block: replace(block, mixer=replace(block.mixer, **change(block.mixer))))


def without_scaling(mixer: AttentionSpec) -> dict[str, Any]:
    assert mixer.rotary is not None
    return {"rotary": replace(mixer.rotary, scaling=None)}


def one_theta(mixer: AttentionSpec) -> dict[str, Any]:
    assert mixer.rotary is not None
    return {"rotary": replace(mixer.rotary, theta=1e6, scaling=None)}


def other_weights(block: BlockSpec) -> BlockSpec:
    moe = block.feedforward
    return replace(block, feedforward=replace(moe, normalise=not moe.normalise)) if isinstance(moe, MoESpec) else block


plain_norm = RMSNormSpec()
ABLATIONS: dict[str, tuple[str, Callable[[DecoderSpec], DecoderSpec]]] = {
    "llama3 scaling": ("llama3", on_attention(without_scaling)),
    "linear scaling": ("llama_linear", on_attention(without_scaling)),
    "yarn scaling": ("qwen2_yarn", on_attention(without_scaling)),
    "longrope": ("phi3_long", on_attention(without_scaling)),
    "mistral window": ("mistral", on_attention(lambda mixer: {"window": None})),
    "window one wider": ("mistral", on_attention(lambda mixer: {"window": WINDOW + 1})),
    "qwen2 late windows": ("qwen2_window", on_attention(lambda mixer: {"window": WINDOW})),
    "qk norm over heads": ("qwen3", on_attention(lambda mixer: {"qk_norm": RMSNormSpec(eps=0.5)})),
    "expert shares": ("mixtral", on_blocks(other_weights)),
    "expert shares, not normalised": ("qwen3_moe", on_blocks(other_weights)),
    "gemma embedding scale": ("gemma2", lambda spec: replace(spec, embed_scale=None)),
    "gemma norms count from one": (
        "gemma3",
        lambda spec: on_blocks(lambda block: replace(block, norm=plain_norm, post_norm=plain_norm))(spec),
    ),
    "gemma final norm": ("gemma3", lambda spec: replace(spec, norm=plain_norm)),
    "gemma attention cap": ("gemma2", on_attention(lambda mixer: {"softcap": None})),
    "gemma final cap": ("gemma2", lambda spec: replace(spec, logit_softcap=None)),
    "gemma query scale": ("gemma2", on_attention(lambda mixer: {"scale": None})),
    "gemma local layers": ("gemma3", on_attention(lambda mixer: {"window": None})),
    "gemma local theta": ("gemma3", on_attention(one_theta)),
    "phi3 partial rotation": (
        "phi3_partial",
        on_attention(lambda mixer: {"rotary": replace(mixer.rotary, fraction=1.0)}),
    ),
    "gemma tanh gelu": (
        "gemma3",
        on_blocks(lambda block: replace(block, feedforward=replace(block.feedforward, activation="silu"))),
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("what", ABLATIONS)
def test_import_needs_each_idea(what: str, pairs) -> None:
    name, change = ABLATIONS[what]
    pair = pairs(name)
    spec = change(pair.ours.spec)
    assert spec != pair.ours.spec
    without = spec.build()
    load_module(without, module_tensors(pair.ours), what)
    tokens = tokens_of(2, 40)
    assert relative(without(tokens), pair.theirs(tokens)) > 100 * TOLERANCE


@torch.no_grad()
def test_import_needs_half_split_rotation(pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    def interleaved(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = (table[..., table.shape[-1] // 2 :] for table in tables)  # the halves that have no minus
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)

    pair, tokens = pairs("llama2"), tokens_of(2, 40)
    monkeypatch.setattr(attention, "rotate", interleaved)
    assert relative(pair.ours(tokens), pair.theirs(tokens)) > 100 * TOLERANCE


@torch.no_grad()
def test_import_needs_each_turned_matrix_of_gpt2(pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The square ones would fit untransposed, and no shape would tell."""
    from underhood.models import huggingface

    pair, tokens = pairs("gpt2"), tokens_of(2, 40)
    family = huggingface.FAMILIES["gpt2"]
    location = family.names["blocks.*.mixer.output"]
    assert isinstance(location, huggingface.Turned)
    names = dict(family.names) | {"blocks.*.mixer.output": location.name}
    monkeypatch.setitem(huggingface.FAMILIES, "gpt2", replace(family, names=names))
    assert relative(load_decoder(pair.folder)(tokens), pair.theirs(tokens)) > 100 * TOLERANCE


@torch.no_grad()
def test_import_needs_the_order_within_fused_tensors(pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    from underhood.models import huggingface

    pair, tokens = pairs("phi3"), tokens_of(2, 40)
    family = huggingface.FAMILIES["phi3"]
    swapped = {"blocks.*.feedforward.up": None, "blocks.*.feedforward.gate": None}
    names = {key: location for key, location in family.names.items() if key not in swapped}
    names |= {key: family.names[key] for key in swapped}
    monkeypatch.setitem(huggingface.FAMILIES, "phi3", replace(family, names=names))
    assert relative(load_decoder(pair.folder)(tokens), pair.theirs(tokens)) > 100 * TOLERANCE


@torch.no_grad()
def test_import_longrope_beyond_the_first_context_matches_transformers(pairs) -> None:
    pair = pairs("phi3_long")
    assert pair.ours.context_length == 96
    tokens = tokens_of(1, 120)
    longer = load_decoder(pair.folder, context_length=160)
    assert longer.context_length == 160
    assert relative(longer(tokens), pair.theirs(tokens)) < TOLERANCE
    assert relative(pair.ours(tokens), pair.theirs(tokens)) > 100 * TOLERANCE
    assert tokens.max() < V
