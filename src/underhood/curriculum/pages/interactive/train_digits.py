"""Weights of the trained net 64-16-16-10 for the page on which one changes a digit, and ten pictures to begin with.

``python -m underhood.curriculum.pages.interactive.train_digits`` trains the net of the milestone p2017_digits and
writes ``digits.json`` beside this file: weights with three decimals, and one unseen picture of each digit.
"""

from __future__ import annotations

import json

from underhood.curriculum.pages.interactive import DIGITS_FILE

SEED, EPOCHS = 0, 60


def main() -> None:
    """Trains, rounds, and writes the net with its accuracy before and after."""
    import numpy as np

    from underhood.core.files import write_text
    from underhood.core.trial import Trial
    from underhood.curriculum.index import find
    from underhood.data.digits import digits
    from underhood.path.lib.sigmoid_layers import initial_layers
    from underhood.path.p2017_digits.run import SHAPE, accuracy, train

    seen, new = digits(SEED)
    rng = np.random.default_rng(SEED)
    weights = initial_layers(SHAPE, rng)
    train(Trial(find("p2017_digits"), "report"), weights, seen, new, EPOCHS, rng)
    rounded = [w.round(3) for w in weights]
    shown = [new.x[np.flatnonzero(new.y == digit)[0]].ravel() * 16 for digit in range(10)]
    content = {
        "accuracy": {"float64": accuracy(weights, new), "rounded": accuracy(rounded, new)},
        "weights": [w.tolist() for w in rounded],
        "pictures": [picture.round().astype(int).tolist() for picture in shown],
    }
    write_text(DIGITS_FILE, json.dumps(content) + "\n")
    print(f"{DIGITS_FILE}: {content['accuracy']}")


if __name__ == "__main__":
    main()
