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
    for conversation in conversations:
        try:
            rendered.append(_rendered(conversation, template, tokenizer, shown))
        except UserError as error:
            raise UserError(
                f"{conversation.source}: {error.what}", expected=error.expected, got=error.got, fix=error.fix
            ) from error
    return rendered


def _rendered(
    conversation: Conversation, template: Template, tokenizer: Tokenizer, shown: dict[tuple[str, ...], bool]
) -> Rendered:
    messages, tools = conversation.messages, conversation.tools
    for name in WRITTEN_FIELDS:
        if any(name in message for message in messages) and not template.writes(name):
            raise _left_out(name)
    if tools is None:
        result = template.render(tokenizer, messages)
    else:
        if not isinstance(template, ForeignTemplate) or not template.writes("tools"):
            raise _left_out("tools")
        # Some templates show tools only where the user speaks last: compared once for every order of roles.
        roles = tuple(message["role"] for message in messages)
        if roles not in shown:
            shown[roles] = template.text(messages, tools=tools) != template.text(messages)
        if not shown[roles]:
            raise _left_out("tools")
        result = template.render(tokenizer, messages, tools=tools)
    if conversation.not_learnt:
        answers = sum(message["role"] == "assistant" for message in messages)
        result = without_loss(result, conversation.not_learnt, answers)
    return result


def _left_out(name: str) -> UserError:
    return UserError(
        f"the field {name!r} would be lost: the model's chat template does not write it",
        fix=f"Remove {name} from the data, or use a model whose template knows it",
    )
