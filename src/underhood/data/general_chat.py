"""General chat prompts: what people ask a chat model that has nothing to do with any documents.

Fine-tuning on one task makes a model forget how it answered everything else (catastrophic forgetting). Its own answers
to such prompts, written before training and mixed into the training data, hold it where it was (self-distillation;
Yang et al. 2024, "Self-Distillation Bridges Distribution Gap in Language Model Fine-Tuning").
"""

from __future__ import annotations

REHEARSED = (
    "What is the capital of Italy?",
    "Who painted the Mona Lisa?",
    "How many legs does a spider have?",
    "What is the largest ocean?",
    "Why is the sky blue?",
    "Explain gravity in simple words.",
    "What do bees eat?",
    "How long do elephants live?",
    "Write a poem about cats.",
    "Tell me a short story about a lost key.",
    "Give me a recipe for tomato soup.",
    "How do I bake bread?",
    "Suggest three names for a dog.",
    "How can I learn to play the guitar?",
    "What is 12 + 30?",
    "Translate 'thank you' into French.",
    "Who was Mozart?",
    "Summarize the plot of Hamlet.",
    "What should I pack for a week in Norway?",
    "Write an email to my landlord about a broken window.",
    "What is the difference between weather and climate?",
    "How does a bicycle stay upright?",
    "Is it better to run in the morning or in the evening?",
    "Write a slogan for a small bakery.",
    "Hello!",
    "Who are you?",
    "What can you do?",
    "Thanks!",
    "Are you human?",
    "Good morning",
    "Help me",
    "Bye",
)
"""Prompts whose answers are rehearsed in training."""

HELD_OUT_CHAT = (
    "What is the capital of France?",
    "Who wrote Romeo and Juliet?",
    "What is the largest planet in the solar system?",
    "How many days are in a week?",
    "What do pandas eat?",
    "Explain photosynthesis in one sentence.",
    "Why do we have seasons?",
    "Write a short poem about the sea.",
    "Tell me a joke.",
    "Give me three tips for sleeping better.",
    "How do I make pancakes?",
    "What is 7 times 8?",
    "Translate 'good morning' into Spanish.",
    "Who was Marie Curie?",
    "Suggest a title for a book about trains.",
    "Write a birthday wish for my sister.",
    "What is democracy?",
    "How can I stay motivated at work?",
    "Hi there!",
    "What is your name?",
)
"""Prompts that are in no training data, to compare a model's answers before and after."""
