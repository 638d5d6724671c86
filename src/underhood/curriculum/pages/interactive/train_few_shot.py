"""Weights of a one-layer GPT that learns labels from its context, for the page on which one gives it examples.

``python -m underhood.curriculum.pages.interactive.train_few_shot`` trains the model of the milestone p2020_few_shot and
writes ``few_shot.json`` beside this file: weights with four decimals.
"""

from __future__ import annotations

import json

from underhood.curriculum.pages.interactive import FEW_SHOT_FILE

SEED, STEPS, WIDTH, HEADS = 1, 700, 32, 2


def main() -> None:
    """Trains, rounds, and writes the weights with the accuracy after eight examples."""
    import torch

    from underhood.core.files import write_text
    from underhood.core.trial import Trial
    from underhood.curriculum.index import find
    from underhood.path.lib.context_tasks import EXAMPLES, ITEMS, LABELS, best_accuracy, labelled_items
    from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec
    from underhood.path.p2020_few_shot.run import answers_of, label_loss, meta_train

    spec = ManyGPTsSpec(
        outputs=LABELS, inputs=ITEMS + LABELS, context=2 * EXAMPLES + 2, width=WIDTH, layers=1, heads=HEADS
    )
    models = ManyGPTs(spec, [SEED])
    meta_train(Trial(find("p2020_few_shot"), "report"), models, labelled_items, label_loss, STEPS)
    with torch.no_grad():
        for parameter in models.parameters():
            parameter.copy_(parameter.mul(1e4).round() / 1e4)
    texts, labels = labelled_items(1, 1000, torch.Generator().manual_seed(10**9))
    right = float((answers_of(models, texts).argmax(dim=-1) == labels)[0, :, -1].float().mean())
    weights = {name: [[round(x, 4) for x in row] for row in p[0].tolist()] for name, p in models.weights.items()}
    content = {"heads": HEADS, "right": right, "best": best_accuracy(EXAMPLES), "weights": weights}
    write_text(FEW_SHOT_FILE, json.dumps(content) + "\n")
    print(f"{FEW_SHOT_FILE}: right {right:.3f}, best possible {best_accuracy(EXAMPLES):.3f}")


if __name__ == "__main__":
    main()
