# %% [markdown]
# # Build a model and talk to it
#
# Five minutes, no download: the documentation inside your Python becomes a language model that answers questions. Run
# this notebook first; the second one looks into the model that it builds.
#
# ## Build
# The command is the same in a terminal. It divides the five minutes among three stages: *pretraining* (predict the next
# token of the text), *supervised fine-tuning* (answer questions), *preference alignment* (choose the better of two
# answers).

# %% [bash]
# underhood build --minutes 5 --out runs/pydocs

# %% [markdown]
# ## How it learned
# A run is a folder. Everything that was logged can be read back.

# %%
import underhood

run = underhood.open_run("runs/pydocs")
print(run.models)
curves = run.curves()
curves["pretrain"]

# %% [markdown]
# The loss is measured in nats per token. It begins near the logarithm of the vocabulary's size, since a new model knows
# nothing and every token is as probable as any other.

# %%
import math

model = underhood.load("runs/pydocs")
pretraining = curves["pretrain"]
print(f"log {model.spec.vocab_size:,} = {math.log(model.spec.vocab_size):.2f}")
print(f"loss of step {pretraining.steps[0]}: {pretraining.loss[0]:.2f}")
print(f"loss of step {pretraining.steps[-1]}: {pretraining.loss[-1]:.2f}")
model

# %% [markdown]
# ## Talk
# A model of this size remembers little. A search finds a passage for each question, and the model copies its answer
# from there and names the source. Each token is coloured by how probable it was.

# %%
retriever = underhood.open_retriever(model)
answer = model.chat("What does os.path.join do?", prepare=retriever.prepare, temperature=0)
print(answer)
answer

# %%
talk = model.conversation(prepare=retriever.prepare)
for question in ("How do I delete a directory tree?", "what does textwrap.dedent do"):
    print(">", question)
    print("".join(talk.reply(question)), end="\n\n")

# %% [markdown]
# ## Without the search
# The same question from memory. A million numbers can't hold the documentation of a library: at best, what comes has
# the form of an answer. Large models fail in the same way, only later.

# %%
model.chat("What does os.path.join do?", temperature=0)

# %% [markdown]
# ## Three models in one run
# Each stage left a model. The base model has never seen a question; it continues the text. The fine-tuned model
# answers.

# %%
for stage in run.models:
    loaded = underhood.load("runs/pydocs", stage)
    print(f"--- {stage}")
    print(loaded.generate("What is a list?", max_tokens=30, temperature=0).strip())
    if loaded.chats:
        print("as a chat:", loaded.chat("What is a list?", temperature=0, max_tokens=30))

# %% [markdown]
# ## What next
# `runs/pydocs/report.html` shows what every stage did. `underhood chat runs/pydocs` talks in a terminal, `underhood
# serve runs/pydocs` on a web page. [The next notebook](2_one_token.ipynb) follows one token through this model.
