"""Conversations of a file as tokens and loss mask, through the chat template of the model that will learn them."""

from __future__ import annotations

from collections.abc import Sequence

from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.chat_fields import REASONING
from underhood.data.conversations import Conversation
from underhood.text.chat import Rendered, Template, without_loss
from underhood.text.hf_chat_template import ForeignTemplate

WRITTEN_FIELDS = ("tool_calls", *REASONING)
"""Fields of messages that are learnt or read only where the template writes them."""


def render_conversations(
    conversations: Sequence[Conversation], template: Template, tokenizer: Tokenizer
) -> list[Rendered]:
    """Each conversation as the template writes it, without loss on the answers that shall not be learnt.

    Raises:
        UserError: the template leaves out or refuses something of a conversation, which is named by file and line.
    """
    shown: dict[tuple[str, ...], bool] = {}
    rendered: list[Rendered] = []
    messages = [conversation.messages for conversation in conversations]
    if isinstance(template, ForeignTemplate):
        rendering = template.render_all(tokenizer, messages, [conversation.tools for conversation in conversations])
    else:
        rendering = template.render_all(tokenizer, messages)
    for conversation in conversations:
        try:
            _check_written(conversation, template, shown)
            rendered.append(_learnt(conversation, next(rendering)))
        except UserError as error:
            raise UserError(
                f"{conversation.source}: {error.what}", expected=error.expected, got=error.got, fix=error.fix
            ) from error
    return rendered


def _check_written(conversation: Conversation, template: Template, shown: dict[tuple[str, ...], bool]) -> None:
    """Raises a `UserError` for a field of the conversation that the template leaves out."""
    messages, tools = conversation.messages, conversation.tools
    for name in WRITTEN_FIELDS:
        if any(name in message for message in messages) and not template.writes(name):
            raise _left_out(name)
    if tools is None:
        return
    if not isinstance(template, ForeignTemplate) or not template.writes("tools"):
        raise _left_out("tools")
    # Some templates show tools only where the user speaks last: compared once for every order of roles.
    roles = tuple(message["role"] for message in messages)
    if roles not in shown:
        shown[roles] = template.text(messages, tools=tools) != template.text(messages)
    if not shown[roles]:
        raise _left_out("tools")


def _learnt(conversation: Conversation, rendered: Rendered) -> Rendered:
    """Without loss on the answers that shall not be learnt."""
    if not conversation.not_learnt:
        return rendered
    answers = sum(message["role"] == "assistant" for message in conversation.messages)
    return without_loss(rendered, conversation.not_learnt, answers)


def _left_out(name: str) -> UserError:
    return UserError(
        f"the field {name!r} would be lost: the model's chat template does not write it",
        fix=f"Remove {name} from the data, or use a model whose template knows it",
    )
