"""Fields of chat records beside the turns: system prompt, history, tools, loss weights, reasoning.

Each field is used, refused by name and line, or counted as unused; none is passed over in silence. The meanings are
those of the tools that write such files:

- ``system`` (LLaMA-Factory, ShareGPT): a system message before the first turn.
- ``history`` (LLaMA-Factory): ``[question, answer]`` pairs before the first turn. Their answers are learnt too.
- ``tools`` (OpenAI, TRL; LLaMA-Factory as a JSON string): function descriptions, for the chat template to write.
- ``weight`` 0 or 1 (OpenAI), ``train`` true or false (Axolotl), ``loss`` true or false (ms-swift), on an answer:
  whether it is learnt.
- ``tool_calls``, ``tool_call_id``, ``reasoning_content`` (OpenAI, DeepSeek): for the chat template to write.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from underhood.core.errors import UserError

HARMLESS = frozenset(
    """
    id ids idx index uuid uid hash key conversation_id session_id dialogue_id prompt_id message_id created created_at
    updated_at timestamp time date source sources origin dataset dataset_name url file license language lang locale
    category categories domain topic topics tag tags title meta metadata extra info split subset fold score scores
    rating quality difficulty model generator author annotator user_id n_turns num_turns turns tokens num_tokens
    parallel_tool_calls
    """.split()  # noqa: SIM905
)
"""Fields that describe a record and say nothing about what should be learnt."""

REFUSED = {
    "functions": "Write them as tools",
    "function_call": "Write it as tool_calls",
    "images": "Leave such records out",
    "image": "Leave such records out",
    "videos": "Leave such records out",
    "audios": "Leave such records out",
    "audio": "Leave such records out",
    "chat_template": "Put the template beside the model",
    "chat_template_kwargs": "Remove it, or put a chat template beside the model that needs none",
    "train_detail": "Only whole answers can be left out, by train or weight",
    "training_detail": "Only whole answers can be left out, by train or weight",
    "weight": "Put it on the answers that it is meant for",
    "train": "Put it on the answers that it is meant for",
    "loss": "Put it on the answers that it is meant for",
}
"""Fields that change what should be learnt and that nothing here can follow, with the way out."""

LOSS_FIELDS = ("weight", "train", "loss")
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names under which templates know what was thought before an answer."""


def check_fields(record: Mapping[str, Any], used: Iterable[str], where: str, unused: Counter[str]) -> None:
    """Counts the fields that nothing uses; those with no value (null, empty) never matter.

    Raises:
        UserError: a field changes what should be learnt and can't be followed.
    """
    known = {*used}
    for name, value in record.items():
        if name in known or name in HARMLESS or is_empty(value):
            continue
        if name in REFUSED:
            raise UserError(f"{where} has the field {name!r}, which can't be followed", fix=REFUSED[name])
        unused[str(name)] += 1


def is_empty(value: Any) -> bool:
    """Whether a field is as good as missing: null, or nothing in it (0 and false say something)."""
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not value)


def system_of(record: Mapping[str, Any], where: str) -> str | None:
    """The ``system`` field's text, None if there is none."""
    value = record.get("system")
    if is_empty(value):
        return None
    if not isinstance(value, str):
        raise UserError(f"{where}: system is not text", expected="a string", got=short(value))
    return value if value.strip() else None


def history_of(record: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """The ``history`` field's questions and answers."""
    value = record.get("history")
    if is_empty(value):
        return []
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: history is not a list of [question, answer] pairs", got=short(value))
    pairs: list[tuple[str, str]] = []
    for number, pair in enumerate(value, start=1):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UserError(
                f"{where}: turn {number} of history is not a pair", expected='["question", "answer"]', got=short(pair)
            )
        pairs.append((pair[0], pair[1]))
    return pairs


def tools_of(record: Mapping[str, Any], where: str) -> tuple[dict[str, Any], ...] | None:
    """The ``tools`` field as templates show it: ``{"type": "function", "function": {"name": …}}`` each."""
    value = record.get("tools")
    if isinstance(value, str) and value.strip():
        value = parsed(value, f"{where}: tools")
    if is_empty(value) or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: tools is not a list of functions", got=short(value))
    tools: list[dict[str, Any]] = []
    for number, tool in enumerate(value, start=1):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            expected = '{"type": "function", "function": {"name": …}}'
            raise UserError(f"{where}: tool {number} is not a function", expected=expected, got=short(tool))
        tools.append(dict(tool) if "function" in tool else {"type": "function", "function": dict(inner)})
    return tuple(tools)


def tool_calls_of(value: Any, where: str) -> list[dict[str, Any]]:
    """An answer's calls with their arguments as objects, which is what templates write as JSON.

    Args:
        value: OpenAI's list; ShareGPT's ``{"name": …, "arguments": …}``, a list of such, or either as a JSON string.
    """
    if isinstance(value, str):
        value = parsed(value, f"{where}: the function call")
    calls: list[dict[str, Any]] = []
    for call in value if isinstance(value, (list, tuple)) else [value]:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            expected = '{"function": {"name": …, "arguments": …}}'
            raise UserError(f"{where}: a tool call names no function", expected=expected, got=short(call))
        arguments = inner.get("arguments")
        if isinstance(arguments, str):
            arguments = parsed(arguments, f"{where}: the arguments of {inner['name']}") if arguments.strip() else {}
        beside = {name: each for name, each in call.items() if name in ("id", "type") and each is not None}
        function = {"name": inner["name"], "arguments": {} if arguments is None else arguments}
        calls.append({"type": "function", **beside, "function": function})
    return calls


def is_learnt(turn: Mapping[str, Any], role: str, where: str) -> bool:
    """Whether the turn carries loss: answers do, unless ``weight``, ``train`` or ``loss`` is 0 or false.

    Raises:
        UserError: a value in between, or a turn of somebody else that should be learnt.
    """
    learnt = role == "assistant"
    for name in LOSS_FIELDS:
        value = turn.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or value in (0, 1):
            wanted = bool(value)
        else:
            raise UserError(
                f"{where}: {name} is neither 0 nor 1", got=short(value), fix="Weights in between are not used"
            )
        if wanted and role != "assistant" and name != "weight":  # OpenAI's weight 1 is what every message has
            raise UserError(f"{where}: {name} {short(value)} on a turn of the {role}", fix="Only answers are learnt")
        learnt = learnt and wanted
    return learnt


def parsed(text: str, what: str) -> Any:
    """The value of a JSON string inside a record."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{what} is not JSON ({error})", got=short(text)) from None


def short(value: Any) -> str:
    """A value for an error message, 40 characters at most."""
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
