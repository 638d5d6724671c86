"""Default sampling: how text is drawn where a user says nothing about it.

What a model's own files name wins (``generation_config.json``, a GGUF file's ``general.sampling.*`` keys). Otherwise it
follows the model: answers of small models are greedy, because drawing from them picks wrong words of right answers;
text that is only continued is drawn, because the likeliest continuation of a small model repeats itself.
``docs/sampling.md`` has the measurements behind the threshold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.text_files import read_text
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.tokenizer_files import TOKENIZER_GGUF
from underhood.models.gguf_reader import is_gguf, read_metadata

DRAWN = SamplingSpec(temperature=0.7, min_p=0.05)
"""Lively, without the long tail of improbable tokens."""

GREEDY_ANSWERS_BELOW = 1_000_000_000
"""Parameters below which a chat model answers greedily unless its files say otherwise."""

GENERATION_CONFIG = "generation_config.json"

FIELDS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
GGUF_PREFIX, GGUF_HEADER = b"general.sampling.", 1 << 20
"""How the keys begin, and the bytes of a file that hold its general keys, which come first."""

GGUF_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


def default_sampling(parameters: int, *, answers: bool, named: Mapping[str, Any] | None = None) -> SamplingSpec:
    """How a model's text is drawn where nothing else is said.

    Args:
        parameters: of the model.
        answers: whether it answers in a conversation, or continues a text.
        named: what its own files say, by the fields of `SamplingSpec` (see `named_sampling`).
    """
    fitting = GREEDY if answers and parameters < GREEDY_ANSWERS_BELOW else DRAWN
    if named and named.keys() != {"repetition_penalty"}:  # a penalty alone says nothing about temperature
        return SamplingSpec(**named)
    return replace(fitting, **named or {})


def named_sampling(location: Path) -> dict[str, Any]:
    """The sampling that the files of a model name, by the fields of `SamplingSpec`; empty where they name none.

    Args:
        location: a folder with a ``generation_config.json``, a run made from a GGUF file, or such a file.

    Raises:
        UserError: a file is damaged, or names an impossible value.
    """
    if is_gguf(location) or (location / TOKENIZER_GGUF).exists():
        file = location if is_gguf(location) else location / TOKENIZER_GGUF
        with file.open("rb") as opened:
            if GGUF_PREFIX not in opened.read(GGUF_HEADER):  # parsing the vocabulary would take half a second
                return {}
        metadata = read_metadata(file)
        return _checked({name: metadata[key] for key, name in GGUF_KEYS.items() if key in metadata}, file)
    file = location / GENERATION_CONFIG
    if not file.exists():
        return {}
    try:
        config = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}", expected="a JSON object") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged", expected="a JSON object")
    given = {name: config[name] for name in FIELDS if config.get(name) is not None}
    if config.get("do_sample") is False:
        given = {name: value for name, value in given.items() if name == "repetition_penalty"} | {"temperature": 0.0}
    elif config.get("do_sample"):
        given = {"temperature": 1.0} | given
    return _checked(given, file)


def _checked(given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    values = {name: value for name, value in given.items() if not (name == "top_k" and value == 0)}  # 0: no limit
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{file}: {name} is not a number", expected="a number", got=repr(value))
    try:
        SamplingSpec(**values)
    except UserError as error:
        raise UserError(f"{file}: {error}", fix="Mend the file, or leave the entry out") from error
    return values
