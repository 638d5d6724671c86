# %% [markdown]
# # One token on its way through the model
#
# How does a model choose the next token? This notebook computes it once by hand, with the real numbers of the model
# that [the first notebook](1_build_and_talk.ipynb) built, and compares every step with what the model itself computes.
#
# Shapes are letters: T tokens, D numbers per token (the model's width), H heads, K numbers per head, V tokens in the
# vocabulary.

# %%
import math

import torch
from IPython.display import HTML

import underhood
from underhood.ui import notebook

model = underhood.load("runs/pydocs", "base")
decoder = model.decoder
print(decoder.spec.layers, "blocks")
model

# %% [markdown]
# ## 1. Text → token ids
# The tokenizer cuts the text into pieces that it knows and looks up their numbers. A blank belongs to the word after
# it.

# %%
text = "Return the name of the"
model.tokens(text)

# %% [markdown]
# In training, every document began with one special token. The model expects it here as well.

# %%
ids = model.prompt_ids(text)
pieces = [model.tokenizer.decode_bytes([token]).decode(errors="replace").replace(" ", "·") for token in ids]
for token, piece in zip(ids, pieces, strict=True):
    print(f"{token:6d}  {piece}")
tokens_T = torch.tensor(ids)

# %% [markdown]
# ## 2. Ids → embeddings
# The embedding is a table with one row of D numbers per token. Looking up is all that happens. Tokens that are used
# alike get similar rows: the neighbours of a token tell what the model knows about it before it has read any context.

# %%
table_VD = decoder.embed.weight
x_TD = table_VD[tokens_T]
print("table", tuple(table_VD.shape), "→ rows", tuple(x_TD.shape))
assert torch.equal(x_TD, decoder.embed(tokens_T))

unit_VD = torch.nn.functional.normalize(table_VD, dim=-1)
for token, piece in zip(ids[1:], pieces[1:], strict=True):
    nearest = (unit_VD @ unit_VD[token]).topk(5).indices.tolist()[1:]
    print(f"{piece:>8}  is close to ", *(repr(model.tokenizer.decode([neighbour])) for neighbour in nearest))

# %% [markdown]
# ## 3. Watching a forward pass
# Every tensor of interest is the output of a named module, so ordinary PyTorch hooks can record it. Here: the queries
# and keys of each block, its attention weights, and the residual stream after it.

# %%
seen = {}


def record(name):
    return lambda module, inputs, output: seen.__setitem__(name, output[0])


handles = []
for number, block in enumerate(decoder.blocks):
    for name in ("mixer.query_rotary", "mixer.key_rotary", "mixer.weights", "feedforward_residual"):
        handles.append(block.get_submodule(name).register_forward_hook(record((number, name))))
logits_TV = model(ids)[0]
for handle in handles:
    handle.remove()
for (number, name), tensor in seen.items():
    print(number, f"{name:22}", tuple(tensor.shape))

# %% [markdown]
# ## 4. Attention by hand
# Each token asks a question (its *query*), and every token offers a *key*. The score of a pair is the product of query
# and key, divided by √K. A token may only see itself and those before it: other scores become −∞. Softmax turns each
# row into shares that add up to one.

# %%
BLOCK = 0
q_HTK, k_GTK = seen[BLOCK, "mixer.query_rotary"], seen[BLOCK, "mixer.key_rotary"]
k_HTK = k_GTK.repeat_interleave(len(q_HTK) // len(k_GTK), dim=0)  # heads may share keys
scores_HTT = q_HTK @ k_HTK.mT / math.sqrt(q_HTK.shape[-1])
future_TT = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
by_hand_HTT = scores_HTT.masked_fill(future_TT, -math.inf).softmax(dim=-1)

of_model_HTT = seen[BLOCK, "mixer.weights"].flatten(0, 1)
torch.testing.assert_close(by_hand_HTT, of_model_HTT)
print("The largest difference from the model's own weights is", f"{(by_hand_HTT - of_model_HTT).abs().max():.1e}")

# %% [markdown]
# One row per token that looks, one column per token that is looked at, in percent. Heads differ: the loop finds, for
# each block, the head that looks most at the token just before. The first picture is a head of the last block, the
# second the head that looks back most of all.


# %%
def attention(block, head):
    weights_TT = seen[block, "mixer.weights"].flatten(0, 1)[head]
    return HTML(notebook.framed(notebook.heat_table(pieces, pieces, weights_TT.tolist())))


for block in range(decoder.spec.layers):
    weights_HTT = seen[block, "mixer.weights"].flatten(0, 1)
    before_H = weights_HTT.diagonal(-1, dim1=-2, dim2=-1).mean(-1)
    print(f"block {block}: head {before_H.argmax()} gives {before_H.max():.0%} to the token before")
attention(decoder.spec.layers - 1, 0)

# %%
looks_back = max(
    ((block, head) for block in range(decoder.spec.layers) for head in range(len(q_HTK))),
    key=lambda at: seen[at[0], "mixer.weights"].flatten(0, 1)[at[1]].diagonal(-1).mean(),
)
print("block {}, head {}".format(*looks_back))
attention(*looks_back)

# %% [markdown]
# ## 5. The residual stream
# Each block adds what attention and the MLP computed to the D numbers of every token. One can read the stream early:
# apply the final norm and the unembedding after every block, and see which next token the model would choose by then
# (the *logit lens*).

# %%
for number in range(decoder.spec.layers):
    x_TD = seen[number, "feedforward_residual"]
    early_V = decoder.unembed(decoder.norm(x_TD))[-1].softmax(-1)
    best = early_V.topk(4).indices.tolist()
    guesses = [f"{model.tokenizer.decode([token])!r} {early_V[token]:.0%}" for token in best]
    print(f"after block {number}:", ", ".join(guesses))

torch.testing.assert_close(decoder.unembed(decoder.norm(x_TD)), logits_TV)

# %% [markdown]
# ## 6. Logits → probabilities
# After the last block there is one score per token of the vocabulary, the *logits*. Softmax makes them probabilities:
# exponentials, divided by their sum. `model.next` gives the same numbers.

# %%
exponentials_V = (logits_TV[-1] - logits_TV[-1].max()).exp()
probability_V = exponentials_V / exponentials_V.sum()

following = model.next(text, k=8)
for token in following:
    assert math.isclose(token.probability, probability_V[token.id], rel_tol=1e-3)
following

# %% [markdown]
# ## 7. One token is drawn
# Temperature divides the logits first: below 1 the best tokens win more often, at 0 the best one always wins. The draw
# is then a throw of a loaded die with V sides.

# %%
for temperature in (0.2, 0.7, 1.5):
    p_V = (logits_TV[-1] / temperature).softmax(-1)
    drawn = torch.multinomial(p_V, 10, replacement=True, generator=torch.Generator().manual_seed(0))
    print(temperature, [model.tokenizer.decode([token]) for token in drawn.tolist()])

# %% [markdown]
# ## 8. And again
# The chosen token is put at the end of the text, and everything above runs again. That is all that `generate` does; it
# keeps keys and values of earlier tokens (the *KV cache*) so that only the new token has to be computed.

# %%
written = list(ids)
for _ in range(12):
    written.append(int(model(written)[0, -1].argmax()))
by_hand = model.tokenizer.decode(written[len(ids) :])
print(text + by_hand)
generated = model.generate(text, max_tokens=12, temperature=0)
assert by_hand.startswith(generated)
generated

# %% [markdown]
# ## Where this is in the code
# Attention: `src/underhood/nn/attention.py`. The block: `nn/block.py`. The model: `models/decoder.py`. Drawing:
# `infer/sample.py`. [The next notebook](3_fine_tune.ipynb) changes a model of 135 million parameters.
