"""Tensors of two tiny trained decoders for the figures about attention: ``attention.json``, read by several scripts.

``python -m underhood.curriculum.pages.interactive.train_attention`` trains both on pydocs (about a minute each) and
writes the file beside this one. Both have 2 layers of 4 heads and read the same sentence of T tokens:

- ``added`` is a decoder in the style of 2017: d_model 32, 8 dimensions per head, sinusoidal positions added to the
  embeddings, LayerNorm before each part;
- ``rotary`` is a decoder as `underhood build` makes it: d_model 64, 16 dimensions per head, normalised queries and
  keys, rotary positions, and the copying circuit written into its first weights (`models.copying`). After training,
  head 0 of layer 0 still looks one token back; head 0 of layer 1 rests on ``<start>``.

The file holds ``tokens`` (the first, ``<start>``, is the end-of-text token that comes before every document), and for
each of the two:

- ``d_model``, ``head_dim``, and ``loss``: nats per token on documents that it was not trained on;
- ``query``, ``key``, ``value``: [layer][head][token][dimension]. Queries and keys of ``rotary`` are not rotated yet:
  the pair (i, i + 8) of token t has to be turned by ``t · theta^(−i/8)``;
- ``weights``: attention weights [layer][head][query][key], those of later keys (0) left out;
- ``added`` only, of layer 0: ``embedding``, ``position`` and ``normed`` [token][d_model] (the first two are added, then
  normalised), ``heads`` [head][token][dimension] (weights times values) and ``mixed`` [token][d_model] (the output
  projection of all heads, which is added to the stream).

Every score is a query times a key over the root of ``head_dim``. All numbers but the weights are rounded to hundredths
and stored as whole numbers of them; weights as thousandths.
"""

from __future__ import annotations

import json
from typing import Any

from underhood.curriculum.pages.interactive import ATTENTION_FILE

SENTENCE = "If the list is None, return None. If the list is not None"
LAYERS, HEADS, CONTEXT, VOCABULARY = 2, 4, 64, 1024
STEPS = 600


def main() -> None:
    """Trains both models, records the sentence in each, and writes the tensors."""
    import torch

    from underhood.core.files import write_text
    from underhood.data.pydocs import pydocs_corpus
    from underhood.data.split import split_documents
    from underhood.text.bpe import train_bpe

    torch.set_num_threads(1)
    train, held_out = (
        [document.text for document in corpus.documents]
        for corpus in split_documents(pydocs_corpus(), held_out=0.05, seed=0)
    )
    tokenizer = train_bpe(train, vocab_size=VOCABULARY)
    tokens = ["<start>", *(tokenizer.decode_bytes([id]).decode() for id in tokenizer.encode(SENTENCE))]
    facts: dict[str, Any] = {"layers": LAYERS, "heads": HEADS, "theta": 10_000, "tokens": tokens}
    for kind in ("added", "rotary"):
        facts[kind] = exported(trained(kind, train, tokenizer), held_out, tokenizer)
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
    write_text(ATTENTION_FILE, text + "\n")
    print(f"{ATTENTION_FILE}: {len(text.encode()) / 1000:.0f} kB, tokens {tokens}")


def trained(kind: str, train: list[str], tokenizer: Any) -> Any:
    """The decoder of a kind, trained on the texts."""
    from underhood.models.decoder import DecoderSpec, qwen3_shaped
    from underhood.nn.attention import AttentionSpec
    from underhood.nn.block import BlockSpec
    from underhood.nn.feedforward import MLPSpec
    from underhood.nn.norm import LayerNormSpec
    from underhood.nn.positions import SinusoidalPositionSpec
    from underhood.train.small_lm import train_small

    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "context_length": CONTEXT, "layers": LAYERS}
    mixer = AttentionSpec(heads=HEADS, rotary=None)
    block = BlockSpec(mixer=mixer, feedforward=MLPSpec(d_ff=128), norm=LayerNormSpec())
    added = DecoderSpec(**shape, d_model=32, blocks=(block,), norm=LayerNormSpec(), positions=SinusoidalPositionSpec())
    rotary = qwen3_shaped(**shape, d_model=64, heads=HEADS, d_ff=128)
    spec = {"added": added, "rotary": rotary}[kind]
    return train_small(train, tokenizer, spec, steps=STEPS, batch_size=16, copying=kind == "rotary")


def exported(model: Any, held_out: list[str], tokenizer: Any) -> dict[str, Any]:
    """A model's tensors for the sentence."""
    import torch
    import torch.nn.functional as F

    from underhood.inspect.sites import Hookable
    from underhood.inspect.trace import recording, trace
    from underhood.nn.forward_context import ForwardContext
    from underhood.nn.rope import rotate
    from underhood.path.lib.in_memory import as_loaded

    ids = torch.tensor([id for text in held_out for id in tokenizer.encode(text)])
    ids_NT = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    with torch.no_grad():
        loss = F.cross_entropy(model(ids_NT)[:, :-1].flatten(0, 1), ids_NT[:, 1:].flatten())
    recorded = trace(as_loaded(model, tokenizer), SENTENCE, ("query", "key", "value", "heads", "mixer"))
    spec, ids_1T = recorded.attention[0], torch.tensor([recorded.ids])
    compared = {name: recorded.layers(name) for name in ("query", "key")}
    if spec.rotary is not None:  # turn them back
        head_dim = compared["query"].shape[-1]
        cos, sin = spec.rotary.tables(ForwardContext(ids_1T, None, None), head_dim, torch.float32)
        compared = {name: rotate(vectors, (cos, -sin)) for name, vectors in compared.items()}
    weights_LHTT = torch.stack([recorded.pattern(layer) for layer in range(LAYERS)])
    values: dict[str, Any] = {
        "d_model": model.spec.d_model,
        "head_dim": compared["query"].shape[-1],
        "loss": round(float(loss), 3),
        **{name: whole(vectors, 100) for name, vectors in compared.items()},
        "value": whole(recorded.layers("value"), 100),
        "weights": [
            [[row[: at + 1] for at, row in enumerate(head)] for head in layer] for layer in whole(weights_LHTT, 1000)
        ],
    }
    if model.position_embed is None:
        return values
    normed: list[torch.Tensor] = []
    hook = {"normed": Hookable(model.blocks[0].mixer_norm, "output")}
    with torch.no_grad(), recording(hook, lambda _, value: normed.append(value)):
        model(ids_1T)
        values["embedding"] = whole(model.embed(ids_1T[0]), 100)
    values["position"] = whole(model.position_embed(torch.arange(len(recorded.ids))), 100)
    values |= {"normed": whole(normed[0][0], 100), "heads": whole(recorded["heads.0"], 100)}
    return values | {"mixed": whole(recorded["mixer.0"], 100)}


def whole(values: Any, parts: int) -> list:
    """A tensor in whole numbers of one hundredth or thousandth, as nested lists."""
    return (values * parts).round().int().tolist()


if __name__ == "__main__":
    main()
