"""System messages in any place of a conversation, for chat templates that take them only at the start, or not at all.

OpenAI's API takes system messages anywhere. A template is given the conversation as it is where it shows every system
message. Where it refuses or drops one, the conversation is rewritten, as little as is needed:

1. System messages at the start become one; a later one becomes a paragraph of the user's turn that follows it, or of
   the one before where an answer follows.
2. The first one, too, becomes a paragraph of the user's turn (Gemma's templates know no system role).
3. Turns of the same speaker in a row become one (Mistral's templates want user and assistant in turn).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.text.chat import Rendered, Template

Conversation = list[dict[str, Any]]


def render_conversation(
    template: Template, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], **options: Any
) -> Rendered:
    """The conversation as tokens, with system messages where the template takes them.

    Args:
        options: for the template's `render`.

    Raises:
        UserError: the template refuses the conversation in every form; the error is about the first one.
    """
    refusal: UserError | None = None
    rendered: Rendered | None = None
    for version in _versions([dict(message) for message in messages]):
        try:
            rendered = template.render(tokenizer, version, **options)
        except UserError as error:
            refusal = refusal or error
            continue
        if _shows_system_messages(tokenizer, rendered, version):
            return rendered
    if rendered is None:
        raise refusal or UserError("a conversation needs at least one message")
    return rendered


def _versions(messages: Conversation) -> Iterator[Conversation]:
    """The conversation as it is, then rewritten more and more; each only where it differs from the one before."""
    last = messages
    yield last
    start = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    system = "\n\n".join(message["content"] for message in messages[:start])
    opening: Conversation = [{"role": "system", "content": system}] if start else []
    folded = _folded(messages)
    for version in ([*opening, *_folded(messages[start:])], folded, _alternating(folded)):
        if version != last:
            yield version
        last = version


def _folded(messages: Conversation) -> Conversation:
    """The conversation with each system message as a paragraph of a user's turn, a turn of its own if there is none."""
    turns: Conversation = []
    pending: list[str] = []

    def place() -> None:
        """Puts what no user's turn follows into the one before."""
        if pending and turns and turns[-1]["role"] == "user":
            turns[-1] = {**turns[-1], "content": "\n\n".join([turns[-1]["content"], *pending])}
        elif pending:
            turns.append({"role": "user", "content": "\n\n".join(pending)})
        pending.clear()

    for message in messages:
        if message["role"] == "system":
            pending.append(message["content"])
        elif message["role"] == "user" and pending:
            turns.append({**message, "content": "\n\n".join([*pending, message["content"]])})
            pending.clear()
        else:
            place()
            turns.append(message)
    place()
    return turns


def _alternating(messages: Conversation) -> Conversation:
    """The conversation with the turns of one speaker in a row as one; calls and results of tools stay as they are."""
    turns: Conversation = []
    for message in messages:
        before = turns[-1] if turns else None
        plain = message["role"] in ("user", "assistant") and not message.get("tool_calls")
        if before is not None and plain and before["role"] == message["role"] and not before.get("tool_calls"):
            turns[-1] = {**before, "content": f"{before['content']}\n\n{message['content']}"}
        else:
            turns.append(message)
    return turns


def _shows_system_messages(tokenizer: Tokenizer, rendered: Rendered, messages: Conversation) -> bool:
    """Whether the text of every system message is in what the model reads: some templates pass over it."""
    system = [message["content"].strip() for message in messages if message["role"] == "system"]
    if not any(system):
        return True
    shown = tokenizer.decode(rendered.ids)
    # A tokenizer may normalise: the text is looked for as it comes back.
    return all(tokenizer.decode(tokenizer.encode(content)).strip() in shown for content in system)
