"""The loop of ``underhood chat``: a line in, a command or an answer out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from underhood.cli.chat_commands import COMMANDS, check, talk_with
from underhood.cli.retrieval_options import open_documents
from underhood.core.errors import UserError, nearest
from underhood.core.text_files import read_line
from underhood.ui.terminal import visible

if TYPE_CHECKING:
    from underhood.cli.chat import Args
    from underhood.infer.chat import PreparedPrompt
    from underhood.infer.load import LoadedModel
    from underhood.infer.sample import SamplingSpec
    from underhood.retrieve.retriever import Retrieved, Retriever
    from underhood.text.chat import Message


class Chat:
    """The loop behind the verb.

    Attributes:
        loaded: the model that answers.
        settings: what was asked for on the command line, as commands have changed it since.
        talk: the conversation.
        texts: with the base model, what was written and how it went on.
        retriever: finds the passages that answers come from, or None.
        retrieved: what it gave the last turn, or None.
    """

    def __init__(self, loaded: LoadedModel, settings: Args, *, interactive: bool):
        self.loaded, self.interactive = loaded, interactive
        self.settings = check(settings)
        self.retriever: Retriever | None = open_documents(settings, loaded)
        self.retrieved: Retrieved | None = None
        self.talk = talk_with(loaded, settings.system, prepare=self.prepare)
        self.texts: list[tuple[str, str]] = []

    @property
    def sampling(self) -> SamplingSpec:
        """How an answer without documents is drawn."""
        return self.settings.sampling(self.loaded.default_sampling(answers=True))

    def greet(self) -> None:
        if self.interactive:
            from underhood.infer.load import PUBLISHED
            from underhood.models.base import parameter_count

            with suppress(ImportError):
                import readline  # noqa: F401  # line editing and history in input()

            parameters = parameter_count(self.loaded.model)
            run = self.loaded.run
            name = run.name if self.loaded.stage == PUBLISHED else f"The {self.loaded.stage} model of {run}"
            print(f"{name}, {parameters:,} parameters.")
            if self.retriever is not None:
                from underhood.cli.source_lines import corpus_line

                print(f"Answers come from {corpus_line(self.retriever.index)}.")
                print("/sources shows the passages of an answer, /retrieve off turns them off.")
            print("/help lists the commands, Ctrl-D leaves.")
        if not self.loaded.chats:
            self.notice("The base model has not learnt to chat: it continues what you write.")

    def lines(self) -> Iterator[str]:
        """What the user says, until the end of input."""
        while True:
            try:
                line = input("\n> ") if self.interactive else read_line()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                self.notice("\nCtrl-D or /quit leaves.")
                continue
            except UnicodeDecodeError as error:  # what was typed
                raise UserError("standard input is not text: it is not in the terminal's encoding") from error
            if not self.interactive and not line:
                return
            yield line.strip()

    def turn(self, line: str) -> bool:
        """One message or command; False when it was the last. In a terminal a mistake costs one line, not the chat."""
        if line in ("/quit", "/exit"):
            return False
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line.partition(" ")
                if name not in COMMANDS:
                    near = nearest(name, COMMANDS)
                    raise UserError(f"unknown command {name}", fix=f"Did you mean {near}?" if near else "Try /help")
                COMMANDS[name](self, rest.strip())
            elif line:
                self.answer(line.removeprefix("/") if line.startswith("//") else line)
        except UserError as error:
            if not self.interactive:
                raise
            self.notice(str(error))
        return True

    def prepare(self, messages: Sequence[Message]) -> PreparedPrompt:
        """The turn with its passages. Answers from documents are greedy unless a temperature was asked for."""
        from underhood.infer.chat import PlainPrompt

        if self.retriever is None:
            return PlainPrompt(messages)
        self.retrieved = self.retriever.prepare(messages, quote=self.settings.quote)
        if self.retrieved.hits and self.settings.temperature is None:
            return replace(self.retrieved, sampling=replace(self.sampling, temperature=0.0))
        return self.retrieved

    def answer(self, text: str) -> None:
        forgotten = self.talk.forgotten
        self.retrieved = None
        shown = ""
        try:
            for piece in self._pieces(text):
                shown += piece
                print(visible(piece) if self.interactive else piece, end="", flush=True)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            print(" [stopped]")
        else:
            print("" if shown.endswith("\n") and self.interactive else "\n", end="", flush=True)
            if self.talk.session.finish == "length" and self.interactive:
                self.notice(f"[cut off after {self.settings.max_tokens} tokens or at the end of the model's context]")
        if self.retrieved is not None and self.interactive:
            from underhood.cli.source_lines import print_citations

            print_citations(self.retrieved, shown)
        if not self.loaded.chats:
            self.texts.append((text, shown))
        if self.talk.forgotten > forgotten:
            self.notice(
                f"[The conversation has outgrown the model's context of {self.loaded.spec.context_length} tokens: "
                f"the model no longer sees its {self.talk.forgotten} oldest messages.]"
            )

    def _pieces(self, text: str) -> Iterator[str]:
        settings, sampling = self.settings, self.sampling
        if self.loaded.chats:
            return self.talk.reply(text, max_new_tokens=settings.max_tokens, sampling=sampling, stop=settings.stop)
        pieces = self.loaded.write(
            text,
            max_tokens=settings.max_tokens,
            sampling=sampling,
            stop=settings.stop,
            session=self.talk.session,
        )
        return (piece.text for piece in pieces if piece.text)

    def notice(self, text: str) -> None:
        """A word from the program: on the screen, or beside the answers when these go into a pipe."""
        print(text, file=sys.stdout if self.interactive else sys.stderr, flush=True)
