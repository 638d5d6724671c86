"""The commands of ``underhood chat``: what a line that begins with a slash does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.retrieval_options import open_documents
from underhood.core.errors import UserError, nearest

if TYPE_CHECKING:
    from underhood.cli.chat import Args
    from underhood.cli.chat_loop import Chat
    from underhood.infer.chat import ChatSession, Prepare
    from underhood.infer.load import LoadedModel

HELP = """\
  /reset              begins a new conversation
  /system TEXT        begins a new one after this system message; /system off
  /stage NAME         goes on with another model of the run
  /set NAME VALUE     changes temperature, top-k, top-p, min-p, seed,
                      repetition-penalty or max-tokens; VALUE may be off;
                      /set alone shows them
  /sources            shows the passages that the last answer came from
  /retrieve FILE      answers from this index; /retrieve off, /retrieve on
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
MAY_BE_OFF: dict[str, float | None] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": None}
"""Settings that may be off, and the value that this is."""
OFF = "off"


def show_help(chat: Chat, _: str) -> None:
    print(HELP)


def reset(chat: Chat, _: str) -> None:
    chat.talk.reset(chat.settings.system)
    chat.texts, chat.retrieved = [], None
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
    from underhood.infer.stages import stages_of

    if not name:
        print(f"{chat.loaded.stage}; there are {', '.join(stages_of(chat.loaded.run))}")
        return
    chat.loaded = open_for_writing(chat.loaded.run, name)
    messages = chat.talk.messages
    chat.retriever = open_documents(chat.settings, chat.loaded) if chat.loaded.chats else None
    chat.talk = talk_with(chat.loaded, prepare=chat.prepare)
    chat.talk.messages = messages
    told = "" if chat.loaded.chats else " It has not learnt to chat: it continues what you write."
    chat.notice(f"Now the {name} model.{told}")


def talk_with(loaded: LoadedModel, system: str | None = None, *, prepare: Prepare) -> ChatSession:
    """A conversation in the model's own form; of a model that has none, only the session is used."""
    from underhood.infer.chat import ChatSession
    from underhood.text.chat import CHATML

    template = loaded.template or CHATML
    return ChatSession(loaded.model, loaded.tokenizer, system=system, template=template, prepare=prepare)


def show_sources(chat: Chat, _: str) -> None:
    from underhood.cli.source_lines import print_sources

    if chat.retrieved is not None and chat.retrieved.hits:
        print_sources(chat.retrieved)
    elif chat.retriever is None:
        print("Answers come from no documents; /retrieve FILE names an index.")
    else:
        print("The last answer came from no document.")


def retrieve(chat: Chat, words: str) -> None:
    """Without a word it says what answers come from; a mistake leaves everything as it was."""
    from underhood.cli.source_lines import corpus_line

    if words:
        if words == OFF:
            settings = replace(chat.settings, no_retrieve=True)
        else:
            index = chat.settings.retrieve if words == "on" else Path(words).expanduser()
            settings = replace(chat.settings, no_retrieve=False, retrieve=index)
        chat.retriever = open_documents(settings, chat.loaded)
        chat.settings = settings
    if chat.retriever is not None:
        chat.notice(f"Answers come from {corpus_line(chat.retriever.index)}.")
    else:
        more = " The run has no index: /retrieve FILE names one." if words == "on" else ""
        chat.notice(f"Answers come from no documents.{more}")


def change_setting(chat: Chat, words: str) -> None:
    if not words:
        for known in SETTINGS:
            value = getattr(chat.settings if known == "max_tokens" else chat.sampling, known)
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
        value = MAY_BE_OFF[name] if word == OFF and name in MAY_BE_OFF else SETTINGS[name](word)
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
        facts |= {"sampling": asdict(chat.sampling), "messages": messages}
        write_text(path, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    chat.notice(f"Saved to {path}.")


COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "/help": show_help,
    "/reset": reset,
    "/system": system,
    "/stage": stage,
    "/set": change_setting,
    "/sources": show_sources,
    "/retrieve": retrieve,
    "/save": save,
}


def check(settings: Args) -> Args:
    """The settings, unless the sampler would refuse them (a `UserError`)."""
    from underhood.infer.sample import SamplingSpec

    settings.sampling(SamplingSpec())
    if settings.max_tokens < 1:
        raise UserError("max-tokens is out of range", expected="a whole number from 1 up", got=str(settings.max_tokens))
    return settings


def _shown(name: str) -> str:
    return name.replace("_", "-")
