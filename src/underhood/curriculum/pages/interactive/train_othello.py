"""A random game of Othello with what a probe reads in a trained model, for the page that shows both.

``python -m underhood.curriculum.pages.interactive.train_othello`` trains the model of the milestone p2022_othello at
report scale and writes ``othello.json`` beside this file: moves, the board as read after each, the model's ranking.
"""

from __future__ import annotations

import json

from underhood.curriculum.pages.interactive import OTHELLO_FILE

SEED, GAME, KEPT = 0, 12345, 12


def main() -> None:
    """Trains the model and its probe, reads one game with both, and writes it."""
    import numpy as np
    import torch

    from underhood.core.files import write_text
    from underhood.core.trial import Trial
    from underhood.curriculum.index import find
    from underhood.data.othello import random_games
    from underhood.evals.board_probe import read_board
    from underhood.path.lib.othello_boards import inputs_and_targets, streams
    from underhood.path.p2022_othello.run import error, fit, train

    trial = Trial(find("p2022_othello"), "report")
    model = train(trial, 6, SEED)
    rng = np.random.default_rng(GAME)
    probing, judged, game = (random_games(count, rng, 6) for count in (3000, 400, 1))
    probes = [fit(trial, x, probing, SEED) for x in streams(model, probing)]
    errors = [error(probe, x, judged) for probe, x in zip(probes, streams(model, judged), strict=True)]
    best = int(np.argmin(errors))
    read = read_board(probes[best], streams(model, game)[best])
    tokens, _ = inputs_and_targets(game)
    with torch.no_grad():
        ranked = model(tokens)[0, 1 : len(read) + 1, :-1].argsort(dim=-1, descending=True)[:, :KEPT]
    content = {
        "size": 6,
        "error": errors[best],
        "moves": game.moves[0, : len(read)].tolist(),
        "read": read.tolist(),
        "ranked": ranked.tolist(),
    }
    write_text(OTHELLO_FILE, json.dumps(content) + "\n")
    print(f"{OTHELLO_FILE}: layer {best + 1}, {errors[best]:.3f} of the discs wrong")


if __name__ == "__main__":
    main()
