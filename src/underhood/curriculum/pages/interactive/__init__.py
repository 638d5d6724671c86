"""Interactive figures of milestone pages: what one can change on each, and the data that its script gets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYMMETRY_SEED = 6
"""A start from which the net of 1986 finds the symmetry; many others do not."""
WORD_TASK_SEED = 1
LETTERS = 40_000
"""Of the text that the generator imitates."""
LENET_FILE = Path(__file__).with_name("lenet.json")
"""Written by `train_lenet`."""
DIGITS_FILE = Path(__file__).with_name("digits.json")
"""Written by `train_digits`."""
ATTENTION_FILE = Path(__file__).with_name("attention.json")
"""Written by `train_attention`, which says what it holds."""
MIXTURE_FILE = Path(__file__).with_name("mixture.json")
"""Written by `train_mixture`."""
FEW_SHOT_FILE = Path(__file__).with_name("few_shot.json")
"""Written by `train_few_shot`."""
NEXT_TOKENS_FILE = Path(__file__).with_name("next_tokens.json")
"""Written by `train_next_tokens`."""


@dataclass(frozen=True, kw_only=True)
class Interactive:
    """One interactive figure.

    Attributes:
        script: file in this folder, without ``.js``.
        title: heading above the figure.
        task: what to do with it.
        notice: what to look for.
    """

    script: str
    title: str
    task: str
    notice: str

    def data(self) -> Any:
        """What the script gets; None for a figure that computes everything itself."""
        maker = DATA.get(self.script)
        return None if maker is None else maker()


def symmetry_start() -> dict[str, Any]:
    """Weights of the net of 1986 before training, drawn as the milestone draws them."""
    import numpy as np

    rng = np.random.default_rng(SYMMETRY_SEED)
    hidden, output = (rng.uniform(-0.3, 0.3, shape) for shape in ((7, 2), 3))
    return {"hidden": hidden.tolist(), "output": output.tolist()}


def moons_demo() -> dict[str, Any]:
    """Points, labels and first weights of micrograd's demo; the last row of a layer's weights is its biases."""
    import numpy as np

    from underhood.path.lib.half_moons import DEMO_SEED, draw

    x, y, weights = draw(DEMO_SEED)
    layers = [np.concatenate(weights[at : at + 2]).tolist() for at in range(0, len(weights), 2)]
    return {"x": x.tolist(), "y": y[:, 0].tolist(), "weights": layers}


def letters_to_imitate() -> dict[str, Any]:
    """Letters of Python's own documentation, for Shannon's approximations."""
    from pydoc_data.topics import topics

    from underhood.data.letters import plain

    return {"text": plain("\n".join(topics[name] for name in sorted(topics)))[:LETTERS]}


def lenet_weights() -> dict[str, Any]:
    """Errors of the trained LeNet, and for each parameter its bytes (base64) and the scale that multiplies them."""
    return json.loads(LENET_FILE.read_text(encoding="utf-8"))


def digits_net() -> dict[str, Any]:
    """The net 64-16-16-10: its accuracy, weights by layer (biases last), and ten pictures with levels from 0 to 16."""
    return json.loads(DIGITS_FILE.read_text(encoding="utf-8"))


def attention_tensors() -> dict[str, Any]:
    """Queries, keys, values and weights of two tiny models for one sentence; see `train_attention`."""
    return json.loads(ATTENTION_FILE.read_text(encoding="utf-8"))


def mixture() -> dict[str, Any]:
    """What a tiny mixture of experts computes for a few sentences; `train_mixture` says what the fields are."""
    return json.loads(MIXTURE_FILE.read_text(encoding="utf-8"))


def next_token_scores() -> dict[str, Any]:
    """The tokens of a small GPT, and for each prompt the scores of all of them (the best one's is 0)."""
    return json.loads(NEXT_TOKENS_FILE.read_text(encoding="utf-8"))


def few_shot_weights() -> dict[str, Any]:
    """A one-layer GPT that learns labels from its context: heads, weights by name, and how often it is right."""
    return json.loads(FEW_SHOT_FILE.read_text(encoding="utf-8"))


def head_weights() -> dict[str, Any]:
    """Tokens and attention weights [layer][head][query][key] of the rotary model."""
    tensors = attention_tensors()
    return {"tokens": tensors["tokens"], "weights": tensors["rotary"]["weights"]}


def head_scores() -> dict[str, Any]:
    """Tokens, queries and keys [head][token][dimension] of the last layer of the model with added positions."""
    tensors = attention_tensors()
    return {"tokens": tensors["tokens"]} | {name: tensors["added"][name][-1] for name in ("query", "key")}


def head_by_steps() -> dict[str, Any]:
    """All tensors of the first layer of the model with added positions."""
    tensors = attention_tensors()
    added = tensors["added"]
    first = {name: added[name][0] for name in ("query", "key", "value")}
    rest = {name: added[name] for name in ("embedding", "position", "normed", "heads", "mixed")}
    return {"tokens": tensors["tokens"]} | first | rest


def every_answer() -> dict[str, Any]:
    """All 64 answers of three words from four: their texts, probabilities in the reference, and both rewards."""
    from underhood.align.enumerable import EnumerableSpec
    from underhood.path.lib.word_task import WORDS, draw_task

    task = draw_task(WORD_TASK_SEED, EnumerableSpec(vocab_size=4, length=3))
    texts = [" ".join(WORDS[token] for token in answer) for answer in task.spec.tokens_NT().tolist()]
    numbers = {"ref": task.ref_logp_N.exp(), "gold": task.gold_N, "proxy": task.proxy_N}
    return {"answers": texts} | {name: [round(x, 9) for x in values_N.tolist()] for name, values_N in numbers.items()}


DATA: dict[str, Callable[[], Any]] = {
    "symmetry": symmetry_start,
    "moons": moons_demo,
    "generator": letters_to_imitate,
    "lenet": lenet_weights,
    "digits": digits_net,
    "rope": mixture,
    "kv_cache": mixture,
    "experts": mixture,
    "sampling": next_token_scores,
    "few_shot": few_shot_weights,
    "heads": head_weights,
    "mask": head_scores,
    "illustrated": head_by_steps,
    "enumerable": every_answer,
}
"""Makers of the data that some scripts need, by script."""

FIGURES: dict[str, Interactive] = {
    stem: Interactive(**texts)
    for stem, texts in tomllib.loads(Path(__file__).with_name("figures.toml").read_text(encoding="utf-8")).items()
}
"""Interactive figures by milestone."""
