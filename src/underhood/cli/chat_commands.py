"""The commands of ``underhood chat``: what a line that begins with a slash does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.core.errors import UserError, nearest

if TYPE_CHECKING:
    from underhood.cli.chat import Args
    from underhood.cli.chat_loop import Chat
    from underhood.infer.chat import ChatSession
    from underhood.infer.load import LoadedModel
    from underhood.infer.sample import SamplingSpec

HELP = """\
  /reset              begins a new conversation
  /system TEXT        begins a new one after this system message; /system off
  /stage NAME         goes on with another model of the run
  /set NAME VALUE     changes temperature, top-k, top-p, min-p, seed,
                      repetition-penalty or max-tokens; VALUE may be off;
                      /set alone shows them
  /save FILE          writes the conversation: JSON, or text if FILE ends in .md
  /help, /quit        this list; leaves, like Ctrl-D
  //text              a message that begins with a slash
Ctrl-C stops an answer."""

SETTINGS: dict[str, type] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "seed": int,
    "repetition_penalty": float,
    "max_tokens": int,
}
MAY_BE_OFF = ("top_k", "top_p", "min_p", "seed")
OFF = "off"


def show_help(chat: Chat, _: str) -> None:
    print(HELP)


def reset(chat: Chat, _: str) -> None:
    chat.talk.reset(chat.settings.system)
    chat.texts = []
    chat.notice("A new conversation.")


def system(chat: Chat, text: str) -> None:
    if not text:
        print(chat.settings.system or "There is no system message.")
        return
    chat.settings = replace(chat.settings, system=None if text == OFF else text)
    reset(chat, "")


def stage(chat: Chat, name: str) -> None:
    """The conversation so far stays: another model may answer the next question."""
    from underhood.cli.model_loading import open_for_writing
    from underhood.infer.load import stages_of

    if not name:
        print(f"{chat.loaded.stage}; there are {', '.join(stages_of(chat.loaded.run))}")
        return
    chat.loaded = open_for_writing(chat.loaded.run, name)
    messages = chat.talk.messages
    chat.talk = talk_with(chat.loaded)
    chat.talk.messages = messages
    told = "" if chat.loaded.chats else " It has not learnt to chat: it continues what you write."
    chat.notice(f"Now the {name} model.{told}")


def talk_with(loaded: LoadedModel, system: str | None = None) -> ChatSession:
    """A conversation in the model's own form; of a model that has none, only the session is used."""
    from underhood.infer.chat import ChatSession
    from underhood.text.chat import CHATML

    return ChatSession(loaded.model, loaded.tokenizer, system=system, template=loaded.template or CHATML)


def change_setting(chat: Chat, words: str) -> None:
    if not words:
        for known in SETTINGS:
            value = getattr(chat.settings, known)
            print(f"  {_shown(known):<18} {OFF if value is None else value}")
        return
    given, _, word = words.partition(" ")
    name, word = given.lstrip("-").replace("-", "_"), word.strip()
    if name not in SETTINGS:
        near = nearest(name, SETTINGS)
        known = ", ".join(map(_shown, SETTINGS))
        raise UserError(
            f"there is no setting {given!r}", fix=f"Did you mean {_shown(near)}?" if near else f"There are {known}"
        )
    try:
        value = None if word == OFF and name in MAY_BE_OFF else SETTINGS[name](word)
    except ValueError as error:
        kind = "a whole number" if SETTINGS[name] is int else "a number"
        off = f" or {OFF}" if name in MAY_BE_OFF else ""
        raise UserError(f"{_shown(name)} has the wrong value", expected=kind + off, got=repr(word)) from error
    chat.settings = check(replace(chat.settings, **{name: value}))


def save(chat: Chat, file: str) -> None:
    from underhood.core.files import write_text

    if not file:
        raise UserError("/save needs the name of a file", fix="For example /save talk.json")
    path = Path(file).expanduser()
    messages = [dict(message) for message in chat.talk.messages]
    for text, continuation in chat.texts:
        messages += [{"role": "text", "content": text}, {"role": "continuation", "content": continuation}]
    if path.suffix == ".md":
        write_text(path, "\n\n".join(f"**{turn['role']}:** {turn['content']}" for turn in messages) + "\n")
    else:
        facts = {"run": str(chat.loaded.run), "stage": chat.loaded.stage}
        facts |= {"sampling": asdict(sampling_of(chat.settings)), "messages": messages}
        write_text(path, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    chat.notice(f"Saved to {path}.")


COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "/help": show_help,
    "/reset": reset,
    "/system": system,
    "/stage": stage,
    "/set": change_setting,
    "/save": save,
}


def check(settings: Args) -> Args:
    """The settings, unless the sampler would refuse them (a `UserError`)."""
    sampling_of(settings)
    if settings.max_tokens < 1:
        raise UserError("max-tokens is out of range", expected="a whole number from 1 up", got=str(settings.max_tokens))
    return settings


def sampling_of(settings: Args) -> SamplingSpec:
    from underhood.infer.sample import SamplingSpec

    given = {field.name for field in fields(settings)}  # of what the sampler knows, a conversation offers a part
    return SamplingSpec(
        **{field.name: getattr(settings, field.name) for field in fields(SamplingSpec) if field.name in given}
    )


def _shown(name: str) -> str:
    return name.replace("_", "-")
