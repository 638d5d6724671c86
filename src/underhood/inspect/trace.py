"""A trace: what a decoder computed for one prompt, site by site.

The pass is the model's own, with its fused attention; submodules have hooks only while it runs. Attention patterns are
worked out afterwards, from queries and keys, for the heads that are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.files import storage_errors, write_text
from underhood.infer.arguments import check_text
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.sites import Hookable, chosen_sites, of_one_prompt
from underhood.models.decoder import Decoder
from underhood.nn.attention import Attention, AttentionSpec
from underhood.nn.forward_context import ForwardContext, MaskRule
from underhood.nn.softcap import apply_softcap
from underhood.ui import notebook
from underhood.ui.visible_bytes import visible

LIMIT_MB = 2_000
"""Most that a trace may take, in megabytes, unless more is allowed."""

SAVE_FIX = "Free some space or choose another folder"


@dataclass(frozen=True, repr=False)
class Trace:
    """The recorded values of one prompt.

    Attributes:
        name: of the model.
        ids: the prompt's T tokens.
        pieces: the same as text, with blanks visible.
        values: by site, on the CPU.
        attention: how each layer attends, by layer; layers that do not attend are missing.
    """

    name: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    values: Mapping[str, Tensor]
    attention: Mapping[int, AttentionSpec] = field(default_factory=dict)

    def __getitem__(self, site: str) -> Tensor:
        """The value at a site.

        Raises:
            UserError: it was not recorded.
        """
        if site not in self.values:
            kinds = dict.fromkeys(name.partition(".")[0] for name in self.values)
            raise UserError(f"the trace has no {site}", expected=f"what was recorded: {', '.join(kinds)}")
        return self.values[site]

    def __repr__(self) -> str:
        size = sum(map(_bytes, self.values.values())) / 1e6
        kinds = ", ".join(dict.fromkeys(site.partition(".")[0] for site in self.values))
        return f"<trace of {len(self.ids)} tokens in {self.name}: {kinds}; {size:.1f} MB>"

    def _repr_html_(self) -> str:
        kinds: dict[str, list[Tensor]] = {}
        for site, value in self.values.items():
            kinds.setdefault(site.partition(".")[0], []).append(value)
        rows = [
            (kind, len(values), " × ".join(map(str, values[0].shape)), f"{sum(map(_bytes, values)) / 1e6:.1f} MB")
            for kind, values in kinds.items()
        ]
        return notebook.framed(
            notebook.facts_table(f"Trace of {len(self.ids)} tokens", {"Model": self.name}),
            notebook.token_strip((id, piece.encode(), None) for id, piece in zip(self.ids, self.pieces, strict=True)),
            notebook.data_table(["recorded", "layers", "shape", "size"], rows),
        )

    def layers(self, kind: str) -> Float[Tensor, "L ..."]:
        """The values of a kind, layer by layer, as one tensor."""
        sites = sorted((site for site in self.values if site.startswith(f"{kind}.")), key=_layer_of)
        if not sites:
            self[kind]
        return torch.stack([self.values[site] for site in sites])

    def pattern(self, layer: int, heads: Sequence[int] | None = None) -> Float[Tensor, "H T T"]:
        """Attention weights of a layer: row t says how much token t takes from each of the tokens up to it.

        Args:
            heads: the heads that are wanted, in this order; None means all.

        Raises:
            UserError: the layer does not attend, has no such head, or ``query`` and ``key`` were not recorded.
        """
        if layer not in self.attention:
            raise UserError(f"layer {layer} has no attention", expected=f"one of {sorted(self.attention)}")
        spec = self.attention[layer]
        q_HTK, k_GTK = self[f"query.{layer}"], self[f"key.{layer}"]
        count = len(q_HTK)
        heads = range(count) if heads is None else heads
        if unknown := [head for head in heads if not 0 <= head < count]:
            raise UserError(f"layer {layer} has no head {unknown[0]}", expected=f"0 to {count - 1}")
        shared = count // len(k_GTK)
        q, k = q_HTK[list(heads)].float(), k_GTK[[head // shared for head in heads]].float()
        scores = q @ k.transpose(1, 2) * (spec.scale or q.shape[-1] ** -0.5)
        if spec.softcap is not None:
            scores = apply_softcap(scores, spec.softcap)
        tokens = torch.zeros(1, len(self.ids), dtype=torch.long)
        mask = ForwardContext(tokens, None, None).mask(MaskRule(causal=spec.causal, window=spec.window))
        if mask is not None:
            scores = scores.masked_fill(~mask[0], -torch.inf)
        return scores.softmax(dim=-1)

    def save(self, path: str | Path) -> None:
        """Writes ``PATH.safetensors`` and ``PATH.json``, which `load_trace` opens anywhere."""
        path = Path(path)
        tensors = {site: value.contiguous() for site, value in self.values.items()}
        with storage_errors(path, SAVE_FIX):
            save_file(tensors, path.with_suffix(".safetensors"))
        facts = {"name": self.name, "ids": self.ids, "pieces": self.pieces}
        specs = {str(layer): to_json(spec, tagged=True) for layer, spec in self.attention.items()}
        write_text(path.with_suffix(".json"), json.dumps(facts | {"attention": specs}, ensure_ascii=False))


def load_trace(path: str | Path) -> Trace:
    """A trace that `Trace.save` wrote.

    Raises:
        UserError: one of its two files is missing or damaged.
    """
    path = Path(path)
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = load_file(path.with_suffix(".safetensors"))
        attention = {int(layer): from_json(AttentionSpec, spec) for layer, spec in facts["attention"].items()}
        name, ids, pieces = facts["name"], tuple(facts["ids"]), tuple(facts["pieces"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is not a trace ({error})", expected="two files that Trace.save wrote") from error
    return Trace(name, ids, pieces, tensors, attention)


def trace(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    sites: Sequence[str] = ("residual",),
    *,
    limit_mb: float = LIMIT_MB,
) -> Trace:
    """Records what a model computes for a prompt.

    Args:
        prompt: a text, which is opened as in the model's training, or token ids.
        sites: which values, see `inspect.sites.KINDS`.
        limit_mb: most that they may take together.

    Raises:
        UserError: the model is not a decoder, a site is unknown, the prompt is empty or longer than the context, or the
            values would take more than `limit_mb`.
    """
    model = loaded.decoder
    ids = prompt_tokens(loaded, prompt)
    hookable = chosen_sites(model, sites)
    needed = expected_mb(model, hookable, len(ids))
    if needed > limit_mb:
        raise UserError(
            f"that trace would take {needed:,.0f} MB, and {limit_mb:,.0f} are allowed",
            fix="Name fewer sites or layers, or allow more with limit_mb",
        )
    values: dict[str, Tensor] = {}

    def keep(site: str, value: Tensor) -> None:
        values[site] = of_one_prompt(site, value.detach(), model).cpu()

    tokens_1T = torch.tensor([ids], device=device_of(model))
    with torch.no_grad(), recording(hookable, keep):
        model(tokens_1T)
    values = {site: values[site] for site in hookable}
    return Trace(str(loaded.run), tuple(ids), pieces_of(loaded, ids), values, attention=attention_specs(model))


def pieces_of(loaded: LoadedModel, ids: Sequence[int]) -> tuple[str, ...]:
    """Each token as text, a space as ``·``."""
    return tuple(visible(loaded.tokenizer.decode_bytes([id])) for id in ids)


def prompt_tokens(loaded: LoadedModel, prompt: str | Sequence[int]) -> list[int]:
    """The ids of a prompt.

    Raises:
        UserError: it is empty, or longer than the context.
    """
    if isinstance(prompt, str):
        check_text(prompt)
        ids = loaded.prompt_ids(prompt)
    else:
        ids = [int(id) for id in prompt]
    limit = loaded.decoder.context_length
    if not ids:
        raise UserError("the prompt has no token", expected="a text")
    if len(ids) > limit:
        raise UserError(f"the prompt has {len(ids):,} tokens", expected=f"at most {limit:,}, the model's context")
    return ids


def checked_position(position: int, count: int) -> int:
    """A position in a prompt of `count` tokens, counted from its start; negative ones are from the end.

    Raises:
        UserError: the prompt is shorter.
    """
    if not -count <= position < count:
        raise UserError(f"the prompt has no token {position}", expected=f"0 to {count - 1}, or -1 for the last")
    return position % count


@contextmanager
def recording(hookable: Mapping[str, Hookable], keep: Any) -> Iterator[None]:
    """Calls ``keep(site, value)`` for each site of every pass inside."""
    handles = []
    for site, hook in hookable.items():

        def on_output(_module: Any, _inputs: Any, output: Any, site: str = site) -> None:
            keep(site, output)

        def on_input(_module: Any, inputs: Any, site: str = site) -> None:
            keep(site, inputs[0])

        if hook.side == "output":
            handles.append(hook.module.register_forward_hook(on_output))
        else:
            handles.append(hook.module.register_forward_pre_hook(on_input))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_specs(model: Decoder) -> dict[int, AttentionSpec]:
    """How each attending layer attends."""
    mixers = {layer: getattr(block, "mixer", None) for layer, block in enumerate(model.blocks)}
    return {layer: mixer.spec for layer, mixer in mixers.items() if isinstance(mixer, Attention)}


def expected_mb(model: Decoder, hookable: Mapping[str, Hookable], tokens: int) -> float:
    """About what the values of these sites take for so many tokens, in megabytes."""
    size = next(model.parameters()).element_size()
    return sum(_width(model, site, hook) for site, hook in hookable.items()) * tokens * size / 1e6


def _width(model: Decoder, site: str, hook: Hookable) -> int:
    """How many numbers a site has for each token."""
    kind, _, layer = site.partition(".")
    if kind == "logits":
        return model.vocab_size
    if isinstance(hook.module, nn.Linear):
        return hook.module.in_features if hook.side == "input" else hook.module.out_features
    if kind in ("query", "key"):  # turned by a module without weights
        mixer = model.blocks[int(layer)].mixer
        assert isinstance(mixer, Attention)
        return mixer.head_dim * (mixer.spec.heads if kind == "query" else mixer.spec.groups)
    return model.spec.d_model


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _layer_of(site: str) -> int:
    return int(site.partition(".")[2])
