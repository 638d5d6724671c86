"""Sites: the places in a decoder whose values can be recorded or changed, by name.

Every site is the input or the output of a submodule, so plain PyTorch hooks see it and no model is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from underhood.core.errors import UserError, nearest
from underhood.models.decoder import Decoder
from underhood.nn.attention import Attention
from underhood.nn.block import Block

Side = Literal["input", "output"]


@dataclass(frozen=True)
class Hookable:
    """Where a site is: a module, and whether the value is what goes in or what comes out."""

    module: nn.Module
    side: Side


@dataclass(frozen=True)
class SiteKind:
    """A kind of site, which every layer has that is made for it.

    Attributes:
        shape: of its values, in the letters of `docs/glossary.md`.
        words: what it is.
        locate: where it is in a block; None for a block that has no such thing.
    """

    shape: str
    words: str
    locate: Callable[[Block], Hookable | None]


def _branch(name: str) -> Callable[[Block], Hookable | None]:
    """What a sublayer adds to the residual stream."""

    def locate(block: Block) -> Hookable | None:
        layer = block._modules.get(name)
        post_norm = block._modules.get(f"{name}_post_norm")
        return None if layer is None else Hookable(layer if post_norm is None else post_norm, "output")

    return locate


def _attention(name: str, rotated: str | None = None) -> Callable[[Block], Hookable | None]:
    """Queries, keys or values of an attention layer, after the rotation where there is one.

    Without a rotation, normalised queries are the output of no module of their own.
    """

    def locate(block: Block) -> Hookable | None:
        mixer = block._modules.get("mixer")
        if not isinstance(mixer, Attention):
            return None
        if rotated is not None and mixer.spec.rotary is not None:
            return Hookable(getattr(mixer, rotated), "output")
        normed = rotated is not None and mixer.spec.qk_norm is not None
        return None if normed else Hookable(getattr(mixer, name), "output")

    return locate


def _heads(block: Block) -> Hookable | None:
    mixer = block._modules.get("mixer")
    return Hookable(mixer.output, "input") if isinstance(mixer, Attention) else None


def _hidden_units(block: Block) -> Hookable | None:
    down = getattr(block._modules.get("feedforward"), "down", None)
    return Hookable(down, "input") if isinstance(down, nn.Module) else None


def _router(block: Block) -> Hookable | None:
    router = getattr(block._modules.get("feedforward"), "router", None)
    return Hookable(router, "output") if isinstance(router, nn.Module) else None


KINDS: Mapping[str, SiteKind] = {
    "residual": SiteKind(
        "T D", "the residual stream before a layer; after the last one, before the norm", lambda _: None
    ),
    "middle": SiteKind(
        "T D", "the residual stream between mixer and feed-forward", lambda b: _output(b, "mixer_residual")
    ),
    "mixer": SiteKind("T D", "what attention, or another mixer, adds to the residual stream", _branch("mixer")),
    "feedforward": SiteKind("T D", "what the feed-forward adds to the residual stream", _branch("feedforward")),
    "query": SiteKind("H T K", "queries, as they are compared", _attention("query", "query_rotary")),
    "key": SiteKind("G T K", "keys, as they are compared", _attention("key", "key_rotary")),
    "value": SiteKind("G T K", "values", _attention("value")),
    "heads": SiteKind("H T K", "what each head reads, before the output projection", _heads),
    "units": SiteKind("T F", "the hidden units of the feed-forward", _hidden_units),
    "router": SiteKind("T E", "scores of the experts", _router),
    "logits": SiteKind("T V", "scores of the next token", lambda _: None),
}
"""Kinds of sites. A site is a kind with a layer (``residual.0``), or ``logits``; a kind alone means all its layers."""


def _output(block: Block, name: str) -> Hookable | None:
    module = block._modules.get(name)
    return None if module is None else Hookable(module, "output")


def sites_of(model: Decoder) -> dict[str, Hookable]:
    """Every site of a model by name, in the order of the forward pass."""
    sites: dict[str, Hookable] = {}
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        sites[f"residual.{layer}"] = Hookable(block, "input")
        for name, kind in KINDS.items():
            hook = kind.locate(block)
            if hook is not None:
                sites[f"{name}.{layer}"] = hook
    sites[f"residual.{len(model.blocks)}"] = Hookable(model.norm, "input")
    return sites | {"logits": Hookable(model.unembed, "output")}


def chosen_sites(model: Decoder, names: Sequence[str]) -> dict[str, Hookable]:
    """The sites of these names: ``residual.3`` is one, ``residual`` is every layer's.

    Raises:
        UserError: a name that no site of this model has; it says which there are.
    """
    known = sites_of(model)
    kinds = list(dict.fromkeys(site.partition(".")[0] for site in known))
    wanted: dict[str, Hookable] = {}
    for name in names:
        matching = {site: hook for site, hook in known.items() if site == name or site.partition(".")[0] == name}
        if not matching:
            layers = len(model.blocks)
            near = nearest(name, [*kinds, *known])
            raise UserError(
                f"this model has no site {name!r}" + (f"; did you mean {near}?" if near else ""),
                expected=f"{', '.join(kinds)}, alone or with a layer from 0 to {layers - 1} (residual: {layers})",
            )
        wanted |= matching
    return wanted


def of_one_prompt(site: str, value: Tensor, model: Decoder) -> Tensor:
    """A hook's value for a batch of one prompt, without the batch, in the shape that `KINDS` states."""
    kind, _, layer = site.partition(".")
    if kind == "router":  # the experts' input has lost its batch already
        return value
    value = value[0]
    if kind in ("query", "key", "value", "heads") and value.ndim == 2:  # (T, H K): the heads side by side
        mixer = model.blocks[int(layer)].mixer
        assert isinstance(mixer, Attention)
        value = value.unflatten(-1, (-1, mixer.head_dim)).transpose(0, 1)
    return value
