"""A tiny mixture of experts, and what it computes for a few sentences, for the figures about today's Transformers.

``python -m underhood.curriculum.pages.interactive.train_mixture`` trains a decoder of two layers (rotary positions,
four query heads on two key-value heads, eight experts of which two are used) on Python's documentation and source code,
which takes about a minute, and writes ``mixture.json`` beside this file: the routers' probabilities, queries and keys
of the second layer before they are turned, and attention weights of a text that the model writes itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from underhood.curriculum.pages.interactive import MIXTURE_FILE

if TYPE_CHECKING:
    import torch

    from underhood.infer.load import LoadedModel
    from underhood.inspect.experts import ExpertUsage

VOCABULARY, WIDTH, LAYERS, HEADS, CONTEXT = 1024, 64, 2, 4, 64
STEPS, BATCH, BALANCING, SEED = 500, 12, 0.05, 0
SENTENCES = (
    "If the file does not exist, an error is raised and the function returns None.",
    "for name in sorted(names):\n    if name in self.values:\n        return self.values[name]",
    "The list of arguments is a tuple of strings, and each string is the name of a class.",
)
OFTEN = 15
"""Times that a token must be read in the held-out texts to count as typical."""
PROMPT, WRITTEN, TEMPERATURE = "The function returns", 24, 0.6


def main() -> None:
    """Trains the model and writes what the figures show."""
    from underhood.core.files import write_text
    from underhood.inspect.experts import expert_usage_over
    from underhood.inspect.trace import pieces_of, trace
    from underhood.path.lib.mixed_text import mixed_strings

    documentation, source, _ = mixed_strings()
    held_out = [text[-20_000:] for text in (documentation, source)]
    loaded, loss = trained([text[:-20_000] for text in (documentation, source)], held_out)
    usage = expert_usage_over(loaded, held_out)
    typical = [
        [pieces_of(loaded, favourites(usage, layer, expert)) for expert in range(usage.experts)]
        for layer in usage.layers
    ]
    texts = []
    for sentence in SENTENCES:
        recorded = trace(loaded, loaded.tokenizer.encode(sentence), ["router"])
        scores = [recorded[f"router.{layer}"].softmax(dim=-1) for layer in range(LAYERS)]
        texts.append({"pieces": recorded.pieces, "router": [rounded(score_TE, 4) for score_TE in scores]})
    data = {
        "steps": STEPS,
        "loss": round(loss, 3),
        "load": [rounded(load_E, 4) for load_E in usage.load],
        "typical": typical,
        "texts": texts,
        "rotary": unturned(loaded, SENTENCES[0]),
        "written": written(loaded),
    }
    write_text(MIXTURE_FILE, json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{MIXTURE_FILE}: held-out loss {loss:.3f} nats per token")


def trained(texts: list[str], held_out: list[str]) -> tuple[LoadedModel, float]:
    """The model with its tokenizer, and its mean loss per held-out token in nats."""
    import torch

    from underhood.models.decoder import DecoderSpec
    from underhood.nn.attention import AttentionSpec
    from underhood.nn.block import BlockSpec
    from underhood.nn.moe import MoESpec
    from underhood.path.lib.in_memory import as_loaded
    from underhood.path.lib.short_training import train_by_step
    from underhood.text.bpe import train_bpe
    from underhood.train.cross_entropy import cross_entropy
    from underhood.train.router_balance import watching_routers

    tokenizer = train_bpe(texts, vocab_size=VOCABULARY)
    train_N, test_N = (
        torch.tensor([id for text in group for id in tokenizer.encode(text)]) for group in (texts, held_out)
    )
    block = BlockSpec(
        mixer=AttentionSpec(heads=HEADS, kv_heads=2),
        feedforward=MoESpec(experts=8, experts_per_token=2, d_ff=WIDTH),
    )
    spec = DecoderSpec(vocab_size=VOCABULARY, context_length=CONTEXT, d_model=WIDTH, layers=LAYERS, blocks=(block,))
    model = spec.initialize(seed=SEED)

    def rows(ids_N: torch.Tensor, count: int, seed: int) -> torch.Tensor:
        starts_B1 = torch.randint(len(ids_N) - CONTEXT, (count, 1), generator=torch.Generator().manual_seed(seed))
        return ids_N[starts_B1 + torch.arange(CONTEXT + 1)]

    def loss_of(row_BT: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten())

    with watching_routers(model) as balance:
        train_by_step(
            model,
            lambda step: loss_of(rows(train_N, BATCH, step)) + BALANCING * balance.take(),
            STEPS,
            fall=2.0,
            tell=lambda _: None,
        )
    with torch.no_grad():
        loss = float(loss_of(rows(test_N, 64, 10**6)))
    return as_loaded(model, tokenizer), loss


def favourites(usage: ExpertUsage, layer: int, expert: int) -> list[int]:
    """The tokens of which the largest share takes an expert first, among those that are read often enough."""
    import torch

    ids_N = torch.tensor(usage.ids)
    first_N = usage.chosen[usage.layers.index(layer), :, 0]
    reads_V = ids_N.bincount(minlength=VOCABULARY)
    share_V = ids_N[first_N == expert].bincount(minlength=VOCABULARY) / reads_V.clamp(min=1)
    share_V[reads_V < OFTEN] = 0
    return share_V.topk(8).indices.tolist()


def unturned(loaded: LoadedModel, sentence: str) -> dict[str, Any]:
    """Queries and keys of the last layer for a sentence, turned back to position 0, and the scores as computed."""
    import torch

    from underhood.inspect.trace import trace
    from underhood.nn.forward_context import ForwardContext
    from underhood.nn.rope import RotarySpec, rotate

    recorded = trace(loaded, loaded.tokenizer.encode(sentence), ["query", "key"])
    q_HTK, k_GTK = recorded[f"query.{LAYERS - 1}"], recorded[f"key.{LAYERS - 1}"]
    back_1T = -torch.arange(q_HTK.shape[1])[None]
    tables = RotarySpec().tables(ForwardContext(back_1T, back_1T, None), q_HTK.shape[-1], q_HTK.dtype)
    scores_HTT = q_HTK @ k_GTK.repeat_interleave(len(q_HTK) // len(k_GTK), dim=0).mT / q_HTK.shape[-1] ** 0.5
    return {
        "pieces": recorded.pieces,
        "query": rounded(rotate(q_HTK[None], tables)[0], 4),
        "key": rounded(rotate(k_GTK[None], tables)[0], 4),
        "scores": rounded(scores_HTT, 3),
    }


def written(loaded: LoadedModel) -> dict[str, Any]:
    """A text that the model writes, and for each of its tokens the attention to those so far, mean over all heads."""
    import torch

    from underhood.infer.cache import ContiguousCache
    from underhood.inspect.trace import pieces_of, trace

    ids = list(loaded.tokenizer.encode(PROMPT))
    prompt = len(ids)
    cache = ContiguousCache.for_model(loaded.decoder, batch=1, capacity=prompt + WRITTEN)
    draw, fresh = torch.Generator().manual_seed(SEED), list(ids)
    with torch.no_grad():
        for _ in range(WRITTEN):
            logits_V = loaded.decoder(torch.tensor([fresh]), cache=cache)[0, -1]
            fresh = [int(torch.multinomial((logits_V / TEMPERATURE).softmax(dim=-1), 1, generator=draw))]
            ids += fresh
    recorded = trace(loaded, ids, ["query", "key"])
    weights_TT = torch.stack([recorded.pattern(layer) for layer in range(LAYERS)]).mean(dim=(0, 1))
    rows = [rounded(row_T[: at + 1], 3) for at, row_T in enumerate(weights_TT)]
    return {"prompt": prompt, "pieces": pieces_of(loaded, ids), "weights": rows}


def rounded(values: torch.Tensor, digits: int) -> Any:
    """Nested lists of numbers with so many digits after the point."""
    return json.loads(json.dumps(values.tolist()), parse_float=lambda number: round(float(number), digits))


if __name__ == "__main__":
    main()
