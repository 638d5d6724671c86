"""Next-token scores of a small GPT for the page on which one changes how a token is drawn.

``python -m underhood.curriculum.pages.interactive.train_next_tokens`` trains a GPT on Python's documentation for a few
minutes and writes ``next_tokens.json`` beside this file: all tokens, and for each prompt their scores with two digits.
"""

from __future__ import annotations

import json

from underhood.curriculum.pages.interactive import NEXT_TOKENS_FILE

SEED, STEPS, TOKENS = 0, 900, 768
PROMPTS = ("If the", "a list of", "The function returns", "Raises a ValueError", "import")


def main() -> None:
    """Trains, scores the prompts, rounds and writes."""
    import torch

    from underhood.core.files import write_text
    from underhood.data.pydocs import pydocs_corpus
    from underhood.models.gpt2 import gpt2_shaped
    from underhood.text.bpe import train_bpe
    from underhood.train.small_lm import train_small

    texts = [document.text for document in pydocs_corpus().documents]
    tokenizer = train_bpe(texts, vocab_size=TOKENS)
    spec = gpt2_shaped(vocab_size=TOKENS, context_length=64, d_model=96, layers=3, heads=4)
    model = train_small(texts, tokenizer, spec, steps=STEPS, seed=SEED)
    prompts = []
    for text in PROMPTS:
        with torch.no_grad():
            scores_V = model(torch.tensor([tokenizer.encode(text)]))[0, -1]
        scores_V = scores_V - scores_V.max()
        prompts.append({"text": text, "scores": [round(score, 2) for score in scores_V.tolist()]})
        best = scores_V.topk(6).indices.tolist()
        print(text, [tokenizer.decode([id]) for id in best])
    special = set(tokenizer.special.values())
    words = ["<end>" if id in special else tokenizer.decode([id]) for id in range(TOKENS)]
    write_text(NEXT_TOKENS_FILE, json.dumps({"tokens": words, "prompts": prompts}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
