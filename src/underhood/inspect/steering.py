"""Steering vectors: a direction of the residual stream, added while a model writes (Turner et al. 2023; Rimsky et al.
2024).

The direction is the difference of the mean residual streams of two sets of prompts, or of one pair, before a layer. The
hook that adds it is removed afterwards; no weight changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_count
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.inspect.interventions import changing
from underhood.inspect.sites import chosen_sites
from underhood.inspect.trace import prompt_tokens, trace
from underhood.ui import notebook

Prompt = str | Sequence[int]


@dataclass(frozen=True, repr=False)
class SteeringVector:
    """A direction of the residual stream before a layer.

    Attributes:
        layer: where it was taken, and is added.
        values: the difference of the two means.
        positive, negative: the prompts that it leads to, and away from.
        stream_norm: mean length of the prompts' own vectors there: a strength of ``stream_norm / norm`` adds as much.
    """

    layer: int
    values: Float[Tensor, "D"]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    stream_norm: float

    @property
    def norm(self) -> float:
        """Its length."""
        return float(self.values.norm())

    def __repr__(self) -> str:
        return (
            f"<steering vector before layer {self.layer}: {len(self.positive)} − {len(self.negative)} prompts, "
            f"length {self.norm:.1f} in a stream of {self.stream_norm:.1f}>"
        )


def steering_vector(
    loaded: LoadedModel,
    positive: str | Sequence[Prompt],
    negative: str | Sequence[Prompt],
    *,
    layer: int,
    tokens: Literal["last", "all"] = "last",
) -> SteeringVector:
    """The mean residual stream of some prompts minus that of others.

    Args:
        positive, negative: a text, or several prompts (texts or token ids).
        layer: before which; the number of layers means after the last.
        tokens: takes the stream after each prompt's last token, or the mean over all but the first, which opens texts.

    Raises:
        UserError: a set is empty, or there is no such layer.
    """
    sets = tuple((prompts,) if isinstance(prompts, str) else tuple(prompts) for prompts in (positive, negative))
    if not all(sets):
        raise UserError("a set of prompts is empty", expected="at least one prompt to lead to, and one away from")
    if tokens not in ("last", "all"):
        raise UserError(f"there are no {tokens!r} tokens", expected="last or all")
    site = f"residual.{layer}"
    means, norms = [], []
    for prompts in sets:
        vectors = []
        for prompt in prompts:
            stream_TD = trace(loaded, prompt, [site])[site].float()
            vectors.append(stream_TD[-1] if tokens == "last" or len(stream_TD) == 1 else stream_TD[1:].mean(dim=0))
            norms.append(float(stream_TD[-1].norm()))
        means.append(torch.stack(vectors).mean(dim=0))
    texts = [tuple(_text(loaded, prompt) for prompt in prompts) for prompts in sets]
    return SteeringVector(layer, means[0] - means[1], texts[0], texts[1], stream_norm=sum(norms) / len(norms))


@contextmanager
def steered(loaded: LoadedModel, vector: SteeringVector, strength: float = 1.0) -> Iterator[None]:
    """Passes inside have ``strength · vector`` added to the residual stream of every token; afterwards none has.

    Works with everything that runs the model: `infer.generate`, chat, traces, evaluation.

    Raises:
        UserError: the vector is of another width, or of a layer that the model does not have; the strength is not a
            finite number.
    """
    model = loaded.decoder
    if not math.isfinite(strength):
        raise UserError("the strength is not a number", expected="a finite number", got=str(strength))
    if len(vector.values) != model.spec.d_model:
        raise UserError(
            f"the vector has {len(vector.values)} numbers", expected=f"{model.spec.d_model}, the model's width"
        )
    site = f"residual.{vector.layer}"
    hook = chosen_sites(model, [site])[site]
    added_D = strength * vector.values

    def change(stream: Tensor) -> Tensor:
        return stream + added_D.to(stream)

    with changing(hook, change):
        yield


@dataclass(frozen=True, repr=False)
class SteeredTexts:
    """Texts that a model writes after one prompt, for several strengths of one vector.

    Attributes:
        prompt: what they continue.
        vector: what was added.
        strengths: how many times it was added; 0 is the model as it is.
        texts: for each strength.
    """

    prompt: str
    vector: SteeringVector
    strengths: tuple[float, ...]
    texts: tuple[str, ...]

    def __repr__(self) -> str:
        lines = (f"  {strength:+g}: {text!r}" for strength, text in zip(self.strengths, self.texts, strict=True))
        return f"<after {self.prompt!r}, steered before layer {self.vector.layer}:\n" + "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        facts = {"Prompt": self.prompt, "Vector": repr(self.vector).strip("<>")}
        rows = [(f"{strength:+g}", text) for strength, text in zip(self.strengths, self.texts, strict=True)]
        return notebook.framed(notebook.facts_table("Steering", facts), notebook.data_table(["strength", "text"], rows))


def steer(
    loaded: LoadedModel,
    prompt: Prompt,
    vector: SteeringVector,
    *,
    strengths: Sequence[float] = (0.0, 1.0),
    max_tokens: int = 40,
    sampling: SamplingSpec = GREEDY,
) -> SteeredTexts:
    """Continues a prompt, a text or token ids, once for each strength.

    Raises:
        UserError: as `steered` and `infer.generate`.
    """
    check_count(max_tokens, "max_tokens", 1)
    options = {"max_new_tokens": max_tokens, "sampling": sampling, "stop_ids": loaded.stop_ids}
    ids, texts = prompt_tokens(loaded, prompt), []
    for strength in strengths:
        with steered(loaded, vector, strength):
            [completion] = generate(loaded.decoder, [ids], **options)
        texts.append(loaded.tokenizer.decode(completion.ids))
    return SteeredTexts(_text(loaded, prompt), vector, tuple(strengths), tuple(texts))


def _text(loaded: LoadedModel, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else loaded.tokenizer.decode(list(prompt))
