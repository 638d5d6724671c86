"""The steps of `letter_nets.train` for one network as one compiled loop: the same arithmetic, nothing allocated.

Two hundred thousand steps of a network this small spend more time between the matrix products than in them. Compiled,
they take about as long as the products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from underhood.kernels.elementwise import exp
from underhood.kernels.jit import inline_kernel, kernel


@inline_kernel
def _forward(
    z: Any, bias: Any, gain: Any, shift: Any, mean: Any, variance: Any, inverse: Any, kept: Any, norm: bool, h: Any
) -> None:
    """From z (rows, H) to tanh, by way of batch normalisation.

    Written are h, and of the batch (positions, H) mean, variance and 1 / deviation, and the normalised z as `kept`.
    """
    rows, width = z.shape
    positions = mean.shape[0]
    for r in range(rows):
        for j in range(width):
            z[r, j] += bias[j]
    if norm:
        share = np.float32(1.0) / np.float32(rows // positions)
        unbiased = np.float32(1.0) / np.float32(rows // positions - 1)
        mean[:] = np.float32(0.0)
        variance[:] = np.float32(0.0)
        for r in range(rows):
            p = r % positions
            for j in range(width):
                mean[p, j] += z[r, j] * share
        for r in range(rows):
            p = r % positions
            for j in range(width):
                z[r, j] -= mean[p, j]
                variance[p, j] += z[r, j] * z[r, j] * unbiased
        for p in range(positions):
            for j in range(width):
                inverse[p, j] = np.float32(1.0) / np.sqrt(variance[p, j] + np.float32(1e-5))
        for r in range(rows):
            p = r % positions
            for j in range(width):
                kept[r, j] = z[r, j] * inverse[p, j]
                z[r, j] = kept[r, j] * gain[j] + shift[j]
    for r in range(rows):
        for j in range(width):
            h[r, j] = np.float32(1.0) - np.float32(2.0) / (exp(np.float32(2.0) * z[r, j]) + np.float32(1.0))


@inline_kernel
def _norm_backward(d: Any, kept: Any, gain: Any, inverse: Any, total: Any, along: Any) -> None:
    """`letter_nets.batch_norm_backward` in place; `total` and `along` (positions, H) get the sums of d and of d x̂."""
    rows, width = d.shape
    positions = inverse.shape[0]
    share = np.float32(1.0) / np.float32(rows // positions)
    unbiased = np.float32(1.0) / np.float32(rows // positions - 1)
    total[:] = np.float32(0.0)
    along[:] = np.float32(0.0)
    for r in range(rows):
        p = r % positions
        for j in range(width):
            total[p, j] += d[r, j]
            along[p, j] += d[r, j] * kept[r, j]
    for r in range(rows):
        p = r % positions
        for j in range(width):
            rest = d[r, j] - total[p, j] * share - kept[r, j] * along[p, j] * unbiased
            d[r, j] = rest * gain[j] * inverse[p, j]


@inline_kernel
def _cross_entropy(scores: Any, y: Any) -> Any:
    """Turns scores (B, V) into the gradient of the mean loss, and returns the loss."""
    loss = np.float32(0.0)
    batch, letters = scores.shape
    for b in range(batch):
        highest = scores[b].max()
        total = np.float32(0.0)
        target = scores[b, y[b]] - highest
        for v in range(letters):
            scores[b, v] = exp(scores[b, v] - highest)
            total += scores[b, v]
        for v in range(letters):
            scores[b, v] /= total * np.float32(batch)
        scores[b, y[b]] -= np.float32(1.0) / np.float32(batch)
        loss += np.log(total) - target
    return loss / np.float32(batch)


@kernel
def descend(
    x_MT: Any,
    y_M: Any,
    ids_SB: Any,
    joins: Any,
    norm: bool,
    bias: bool,
    embed: Any,
    weights: Any,
    biases: Any,
    gains: Any,
    shifts: Any,
    output: Any,
    output_bias: Any,
    means: Any,
    variances: Any,
    rate: Any,
    momentum: Any,
    curve_S: Any,
) -> None:
    """Steps over the batches `ids_SB`, in place.

    Args:
        weights: a tuple with an array (inputs, H) for each layer; `biases`, `gains` and `shifts` likewise (H,).
        means, variances: running statistics, for each layer (positions, H); more than one position is the bug.
        curve_S: gets the loss before each step.
    """
    layers, (steps, batch), hidden = len(weights), ids_SB.shape, output.shape[0]
    context, width = x_MT.shape[1], embed.shape[1]
    first = batch * context * width
    size = batch * context * hidden
    # Per layer the activations, the normalised ones, and one gradient; `values` begins with the letters' vectors.
    values, normalized = np.empty(first + layers * size, np.float32), np.empty(layers * size, np.float32)
    z_all, d_all = np.empty(size, np.float32), np.empty(max(first, size), np.float32)
    d_next = np.empty(max(first, size), np.float32)
    scores, g_output = np.empty((batch, output.shape[1]), np.float32), np.empty_like(output)
    mean_all = np.empty((layers, context, hidden), np.float32)
    variance_all, inverse_all = np.empty_like(mean_all), np.empty_like(mean_all)
    total_all, along_all = np.empty_like(mean_all[0]), np.empty_like(mean_all[0])
    g_embed = np.empty_like(embed)
    y = np.empty(batch, np.int64)
    for s in range(steps):
        for b in range(batch):
            example = ids_SB[s, b]
            y[b] = y_M[example]
            for t in range(context):
                for e in range(width):
                    values[(b * context + t) * width + e] = embed[x_MT[example, t], e]
        count, start, inputs = context, 0, width
        for layer in range(layers):
            count //= joins[layer]
            rows, inputs = batch * count, inputs * joins[layer]
            x = values[start : start + rows * inputs].reshape(rows, inputs)
            start = first + layer * size
            z = z_all[: rows * hidden].reshape(rows, hidden)
            h = values[start : start + rows * hidden].reshape(rows, hidden)
            np.dot(x, weights[layer], z)
            kept = normalized[layer * size : layer * size + rows * hidden].reshape(rows, hidden)
            positions = means[layer].shape[0]
            mean, variance = mean_all[layer, :positions], variance_all[layer, :positions]
            inverse = inverse_all[layer, :positions]
            _forward(z, biases[layer], gains[layer], shifts[layer], mean, variance, inverse, kept, norm, h)
            inputs = hidden
        h = values[start : start + batch * hidden].reshape(batch, hidden)
        np.dot(h, output, scores)
        for b in range(batch):
            scores[b] += output_bias
        curve_S[s] = _cross_entropy(scores, y)
        np.dot(h.T, scores, g_output)
        d = d_all[: batch * hidden].reshape(batch, hidden)
        np.dot(scores, output.T, d)
        for i in range(output.shape[0]):
            for j in range(output.shape[1]):
                output[i, j] -= rate * g_output[i, j]
        for b in range(batch):
            for j in range(output.shape[1]):
                output_bias[j] -= rate * scores[b, j]
        count = 1
        for layer in range(layers - 1, -1, -1):
            rows = batch * count
            d = d_all[: rows * hidden].reshape(rows, hidden)
            start = first + layer * size
            h = values[start : start + rows * hidden].reshape(rows, hidden)
            for r in range(rows):
                for j in range(hidden):
                    d[r, j] *= np.float32(1.0) - h[r, j] * h[r, j]
            positions = means[layer].shape[0]
            if norm:
                kept = normalized[layer * size : layer * size + rows * hidden].reshape(rows, hidden)
                total, along = total_all[:positions], along_all[:positions]
                variance, inverse = variance_all[layer, :positions], inverse_all[layer, :positions]
                _norm_backward(d, kept, gains[layer], inverse, total, along)
                for p in range(positions):
                    for j in range(hidden):
                        gains[layer][j] -= rate * along[p, j]
                        shifts[layer][j] -= rate * total[p, j]
                        means[layer][p, j] += momentum * (mean_all[layer, p, j] - means[layer][p, j])
                        variances[layer][p, j] += momentum * (variance[p, j] - variances[layer][p, j])
            if bias:
                for r in range(rows):
                    for j in range(hidden):
                        biases[layer][j] -= rate * d[r, j]
            inputs = weights[layer].shape[0]
            start = first + (layer - 1) * size if layer else 0
            x = values[start : start + rows * inputs].reshape(rows, inputs)
            gradient = np.dot(x.T, d)
            below = d_next[: rows * inputs].reshape(rows, inputs)
            np.dot(d, weights[layer].T, below)
            weight = weights[layer]
            for i in range(inputs):
                for j in range(hidden):
                    weight[i, j] -= rate * gradient[i, j]
            d_all, d_next = d_next, d_all
            count *= joins[layer]
        g_embed[:] = np.float32(0.0)
        for b in range(batch):
            for t in range(context):
                row, letter = (b * context + t) * width, x_MT[ids_SB[s, b], t]
                for e in range(width):
                    g_embed[letter, e] += d_all[row + e]
        for i in range(embed.shape[0]):
            for e in range(width):
                embed[i, e] -= rate * g_embed[i, e]
