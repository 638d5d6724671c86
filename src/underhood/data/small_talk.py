"""Conversations without documents: greetings, questions about the model itself, and questions about something else."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from underhood.data.question_forms import as_typed

ABOUT = "I am a small language model, built with Underhood from {text}. Ask me what {example}."
HELLO = "Hello! Ask me what {example}."
THANKS = "You are welcome. Ask me about anything else in {text}."
BYE = "Goodbye!"
HELP = "I answer questions about {text}, and cite the passage that an answer comes from. Ask me what {example}."

REPLIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "Hello",
            "Hello!",
            "Hi",
            "Hi!",
            "Hey",
            "hi there",
            "Hello there!",
            "Good morning",
            "Good evening!",
            "Greetings",
        ),
        HELLO,
    ),
    (
        (
            *(
                "Who are you?",
                "What are you?",
                "Are you human?",
                "Are you a person?",
                "What is your name?",
                "Who made you?",
            ),
            *(
                "Are you a robot?",
                "Tell me about yourself",
                "Are you a language model?",
                "who am I talking to?",
                "Are you an AI?",
            ),
            *(
                "Are you ChatGPT?",
                "Who built you?",
                "introduce yourself",
                "Are you a real human?",
                "what kind of model are you",
            ),
        ),
        ABOUT,
    ),
    (
        (
            *(
                "What can you do?",
                "Help",
                "What can I ask you?",
                "How can you help me?",
                "What do you know?",
                "help me",
            ),
            *(
                "What are you good at?",
                "What should I ask?",
                "How do you work?",
                "what is this?",
                "What can I do here?",
            ),
        ),
        HELP,
    ),
    (("Thanks", "Thank you", "thanks a lot!", "Great, thanks", "Thank you very much!", "thx", "ok thanks"), THANKS),
    (("Bye", "Goodbye", "See you", "bye bye", "Good night", "See you later!"), BYE),
)
"""What people say without asking about a document, and the answer."""

PYDOCS_TEXT, PYDOCS_EXAMPLE = "the documentation of Python", "`os.path.join` does"
"""What a model of the default corpus knows, and a question for it."""


def small_talk(text: str, example: str) -> list[tuple[str, str]]:
    """Pairs of what people say and the answer.

    Args:
        text: what the model was trained on, in the words of a sentence.
        example: what one may ask, after "Ask me what".
    """
    return [
        (question, answer.format(text=text, example=example)) for questions, answer in REPLIES for question in questions
    ]


PLACES = ("France", "Italy", "Japan", "Brazil", "Kenya", "Norway", "Peru", "Canada", "Egypt", "India", "Spain", "Chile")
PEOPLE = ("Napoleon", "Mozart", "Einstein", "Cleopatra", "Shakespeare", "Darwin", "Picasso", "Newton", "Gandhi")
THINGS = ("bread", "soup", "a cake", "coffee", "pasta", "a garden", "a bicycle", "a guitar", "a boat", "pancakes")
ANIMALS = ("elephants", "cats", "whales", "bees", "horses", "owls", "sharks", "penguins")
ELSEWHERE = (
    ("What is the largest city of {}?", PLACES),
    ("How many people live in {}?", PLACES),
    ("Who is the president of {}?", PLACES),
    ("What is the weather like in {} today?", PLACES),
    ("Which language do they speak in {}?", PLACES),
    ("When was {} born?", PEOPLE),
    ("Who was {}?", PEOPLE),
    ("How do I bake {}?", THINGS),
    ("How much does {} cost?", THINGS),
    ("What do {} eat?", ANIMALS),
    ("How long do {} live?", ANIMALS),
    ("Tell me a joke about {}", ANIMALS),
    ("Why do {} sleep?", ANIMALS),
    ("Write a poem about {}", THINGS),
)


def elsewhere(pick: Random) -> Iterator[str]:
    """Questions that no documentation of a program answers, without end."""
    while True:
        form, subjects = pick.choice(ELSEWHERE)
        yield as_typed(form.format(pick.choice(subjects)), pick)
