"""Weights of a trained LeNet for the page on which one draws digits, as bytes with one scale per layer.

``python -m underhood.curriculum.pages.interactive.train_lenet MNIST`` trains the network of 1989 on as many pictures
as the paper had (7,291) and writes ``lenet.json`` beside this file. Pictures are shifted by up to a pixel, because a
reader does not draw in the middle.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from underhood.curriculum.pages.interactive import LENET_FILE

PICTURES, PASSES, BATCH, LR = 7291, 9, 16, 0.003


def main(folder: Path) -> None:
    """Trains the network, rounds its weights to bytes, and writes them with the errors before and after."""
    import numpy as np
    import torch

    from underhood.core.files import write_text
    from underhood.data.digits import framed, mnist
    from underhood.models.lenet import LeNet
    from underhood.train.image_trainer import ImageTrainer, error

    train, test = mnist(folder)
    chosen = np.random.default_rng(0).permutation(len(train))[:PICTURES]
    torch.manual_seed(0)
    trainer = ImageTrainer(passes=PASSES, batch=BATCH, lr=LR, adam=True, squared=True, shifts=True)
    net = trainer(LeNet(), framed(train.at(chosen), 16))
    unseen = framed(test.at(slice(0, 2007)), 16)
    before = error(net, *unseen)
    layers = {}
    with torch.no_grad():
        for name, weights in net.named_parameters():
            scale = float(weights.abs().max()) / 127
            rounded = (weights / scale).round().to(torch.int8)
            weights.copy_(rounded * scale)
            layers[name] = {"scale": scale, "bytes": base64.b64encode(rounded.numpy().tobytes()).decode()}
    errors = {"float32": before, "int8": error(net, *unseen)}
    write_text(LENET_FILE, json.dumps({"errors": errors, "layers": layers}, indent=1) + "\n")
    print(f"{LENET_FILE}: {errors}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
