"""The first network of many courses: sixteen and sixteen logistic units between pixels and ten digits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.data.digits import Pictures, digits
from underhood.path.lib.sigmoid_layers import Floats, activities, initial_layers, squared_error_gradients

SHAPE = (64, 16, 16, 10)
BATCH, RATE = 10, 3.0
NOISE_PICTURES = 1000


def run(trial: Trial) -> None:
    passes_back, epochs = not trial.ablated("backward"), trial.by_scale(smoke=30, report=60)
    curves: list[list[float]] = []
    for seed in trial.each_seed():
        seen, new = digits(seed)
        rng = np.random.default_rng(seed)
        weights = initial_layers(SHAPE, rng)
        trial.measure("parameters", sum(w.size for w in weights))
        trial.measure("gradient", difference_from_autograd(weights, seen.at(slice(0, 50)), passes_back))
        curves.append(train(trial, weights, seen, new, epochs, rng, passes_back=passes_back))
        ours = accuracy(weights, new)
        trial.measure("accuracy", ours)
        if trial.wants("noise"):
            noise = np.random.default_rng(seed).random((NOISE_PICTURES, 64))
            trial.measure("noise", float((activities(weights, noise)[-1].max(axis=1) > 0.5).mean()))
        if trial.wants("one_layer"):
            flat = initial_layers((SHAPE[0], SHAPE[-1]), rng)
            train(trial, flat, seen, new, epochs, rng)
            trial.measure("one_layer", ours - accuracy(flat, new))
        if trial.wants("neighbour"):
            theirs, same = scikit_learns(weights, seen, new, seed)
            trial.measure("neighbour", ours - theirs)
            if seed == trial.seeds[-1]:
                trial.oracle("MLPClassifier with our weights names the same digits", same == 1, f"{same:.2%} of them")
                show(trial, weights, new, np.array(curves))


def train(
    trial: Trial,
    weights: list[Floats],
    seen: Pictures,
    new: Pictures,
    epochs: int,
    rng: np.random.Generator,
    *,
    passes_back: bool = True,
) -> list[float]:
    """Mini-batch stochastic gradient descent on the squared error, in place; the accuracy on new pictures by epoch."""
    x_NP, y_NC = pixels(seen), np.eye(10)[seen.y]
    curve = [accuracy(weights, new)]
    for epoch in range(epochs):
        for batch in np.array_split(rng.permutation(len(x_NP)), len(x_NP) // BATCH):
            layers = activities(weights, x_NP[batch])
            gradients = squared_error_gradients(weights, layers, y_NC[batch], passes_back=passes_back)
            for w, gradient in zip(weights, gradients, strict=True):
                w -= RATE * gradient
        curve.append(accuracy(weights, new))
        trial.progress(epoch / epochs, "epochs")
    return curve


def pixels(pictures: Pictures) -> Floats:
    return pictures.x.reshape(len(pictures), -1).astype(np.float64)


def named(weights: list[Floats], pictures: Pictures) -> NDArray[np.int64]:
    """The digit whose output unit is most active."""
    return activities(weights, pixels(pictures))[-1].argmax(axis=1)


def accuracy(weights: list[Floats], pictures: Pictures) -> float:
    return float((named(weights, pictures) == pictures.y).mean())


def difference_from_autograd(weights: list[Floats], seen: Pictures, passes_back: bool) -> float:
    x_NP, y_NC = pixels(seen), np.eye(10)[seen.y]
    ours = squared_error_gradients(weights, activities(weights, x_NP), y_NC, passes_back=passes_back)
    copies = [torch.tensor(w, requires_grad=True) for w in weights]
    a = torch.from_numpy(x_NP)
    for w in copies:
        a = torch.sigmoid(a @ w[:-1] + w[-1])
    (0.5 * (a - torch.from_numpy(y_NC)).square().sum(dim=1).mean()).backward()
    return max(float(np.abs(g - c.grad.numpy()).max()) for g, c in zip(ours, copies, strict=True) if c.grad is not None)


def scikit_learns(weights: list[Floats], seen: Pictures, new: Pictures, seed: int) -> tuple[float, float]:
    """The accuracy of scikit-learn's classifier, and how often it agrees with us when it is given our weights."""
    from sklearn.neural_network import MLPClassifier

    options: dict[str, Any] = {"activation": "logistic", "solver": "sgd", "batch_size": BATCH, "momentum": 0.0}
    classifier = MLPClassifier(
        hidden_layer_sizes=SHAPE[1:-1], learning_rate_init=0.3, max_iter=60, tol=0.0, random_state=seed, **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 60 passes are not convergence: ours take as many
        classifier.fit(pixels(seen), seen.y)
    theirs = float(classifier.score(pixels(new), new.y))
    classifier.coefs_, classifier.intercepts_ = [w[:-1] for w in weights], [w[-1] for w in weights]
    return theirs, float(np.mean(classifier.predict(pixels(new)) == named(weights, new)))


def show(trial: Trial, weights: list[Floats], new: Pictures, curves: Floats) -> None:
    epochs = tuple(range(curves.shape[1]))
    series = (Series("new digits", epochs, curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0)),)
    trial.plot(title="It learns to read", x="passes over the pictures", y="share read correctly", series=series)
    first = weights[0][:-1].T.reshape(-1, 8, 8)
    lines = tuple(tuple(map(float, first[:4, row].ravel())) for row in range(8))
    columns = tuple(f"{unit + 1}.{column + 1}" for unit in range(4) for column in range(8))
    note = "No edges, no loops, only blobs: what the video found in its own net as well."
    trial.figure(
        Heat(
            title="The pixels that the first four hidden units look at, side by side",
            values=lines,
            rows=tuple(f"row {row + 1}" for row in range(8)),
            columns=columns,
            signed=True,
            note=note,
        )
    )
    table = np.zeros((10, 10))
    np.add.at(table, (new.y, named(weights, new)), 1)
    labels = tuple(map(str, range(10)))
    trial.figure(
        Heat(
            title="What it reads (columns) for which digit (rows)",
            values=tuple(map(tuple, table)),
            rows=labels,
            columns=labels,
        )
    )
