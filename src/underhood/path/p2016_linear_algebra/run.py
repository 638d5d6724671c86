"""3Blue1Brown 2016: what a matrix does to space, and the directions that say most about a cloud of pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Frames, Heat, Plot, Series
from underhood.core.trial import Trial
from underhood.data.digits import digits

Floats = NDArray[np.float64]
SHEAR = np.array([[1.6, 0.7], [0.3, 0.9]])
SQUARE = np.array([[0.0, 1, 1, 0], [0, 0, 1, 1]])
COMPONENTS = 30


def run(trial: Trial) -> None:
    pictures = np.concatenate([half.x for half in digits(0)]).reshape(-1, 64).astype(float)
    mean = 0.0 if trial.ablated("centre") else pictures.mean(axis=0)
    cloud = pictures - mean
    covariance = cloud.T @ cloud / len(cloud)
    angles = not trial.ablated("angles")
    values, vectors = stretched_most(covariance, COMPONENTS, np.random.default_rng(0), angles)
    shares = np.cumsum(values) / np.trace(covariance)
    for key, count in (("two", 2), ("most", 29)):
        trial.measure(key, shares[count - 1])
    theirs = np.linalg.eigvalsh(covariance)[::-1][:10]
    trial.measure("eigen", np.abs(values[:10] / theirs - 1).max())
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        A, B, x = rng.standard_normal((5, 5)), rng.standard_normal((5, 5)), rng.standard_normal(5)
        mixed = sum(number * column for number, column in zip(x, A if trial.ablated("columns") else A.T, strict=True))
        trial.measure("columns", np.abs(A @ x - mixed).max())
        flat = rng.standard_normal((2, 2))
        trial.measure("area", abs(shoelace(flat @ SQUARE) - abs(determinant(flat))))
        trial.measure("product", abs(determinant(A @ B) / (determinant(A) * determinant(B)) - 1))
        trial.measure("powers", repeated(rng))
        if trial.wants("svd"):
            U, stretch, V = decomposed(A, rng, angles)
            turned = max(np.abs(basis.T @ basis - np.eye(5)).max() for basis in (U, V))
            trial.measure("svd", max(np.abs(U * stretch @ V.T - A).max(), turned))
        if trial.wants("best"):
            planes = (np.linalg.qr(rng.standard_normal((64, 2)))[0] for _ in range(1000))
            held = max(float(np.trace(plane.T @ covariance @ plane)) for plane in planes)
            trial.measure("best", shares[1] - held / np.trace(covariance))
    if not trial.is_ablation:
        squared = np.linalg.svd(cloud, compute_uv=False)[:10] ** 2 / len(cloud)
        trial.oracle("singular values of the cloud, squared (LAPACK)", np.allclose(values[:10], squared, rtol=1e-8))
        show(trial, cloud, vectors, shares)


def stretched_most(
    A: Floats, count: int, rng: np.random.Generator, angles: bool = True, times: int = 400
) -> tuple[Floats, Floats]:
    """The largest eigenvalues of a symmetric matrix, and eigenvectors as columns, by applying it again and again."""
    V = at_right_angles(rng.standard_normal((len(A), count)))
    for _ in range(times):
        V = A @ V
        V = at_right_angles(V) if angles else V / np.linalg.norm(V, axis=0)
    return np.einsum("ik,ij,jk->k", V, A, V), V


def at_right_angles(V: Floats) -> Floats:
    """The columns made unit vectors at right angles to all before them (Gram and Schmidt, twice for rounding)."""
    V = V.copy()
    for k in range(V.shape[1]):
        for _ in range(2):
            V[:, k] -= V[:, :k] @ (V[:, :k].T @ V[:, k])
        V[:, k] /= np.linalg.norm(V[:, k])
    return V


def decomposed(A: Floats, rng: np.random.Generator, angles: bool = True) -> tuple[Floats, Floats, Floats]:
    """A = U diag(stretch) Vᵀ: V are the eigenvectors of AᵀA, and U is where A takes them."""
    _, V = stretched_most(A.T @ A, len(A), rng, angles, times=4000)
    taken = A @ V
    stretch = np.linalg.norm(taken, axis=0)
    return taken / stretch, stretch, V


def determinant(A: Floats) -> float:
    """Expanded along the first row: each entry times the determinant of what is in neither its row nor its column."""
    if len(A) == 1:
        return float(A[0, 0])
    return sum((-1) ** j * A[0, j] * determinant(np.delete(A[1:], j, axis=1)) for j in range(len(A)))


def shoelace(corners: Floats) -> float:
    """The area of a polygon from its corners in order, (2, corners)."""
    x, y = corners
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def repeated(rng: np.random.Generator) -> float:
    """How far P D²⁰ P⁻¹ x is from applying A = P D P⁻¹ to x twenty times."""
    P, factors, x = (
        at_right_angles(rng.standard_normal((4, 4))) + 0.3,
        rng.uniform(-1.1, 1.1, 4),
        rng.standard_normal(4),
    )
    A = P * factors @ np.linalg.inv(P)
    own = np.linalg.solve(P, x)
    for _ in range(20):
        x = A @ x
    return float(np.abs(x - P @ (factors**20 * own)).max())


def show(trial: Trial, cloud: Floats, vectors: Floats, shares: Floats) -> None:
    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    frames = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = ((1 - share) * np.eye(2) + share * SHEAR) @ circle
        series = (Series("circle", tuple(circle[0]), tuple(circle[1])), Series("its image", tuple(x), tuple(y)))
        frames.append((f"{share:.0%}", Plot(title="A matrix at work", x="x", y="y", kind="points", series=series)))
    trial.figure(Frames(title="What a matrix does to a circle", control="how far", frames=tuple(frames)))
    counts = tuple(map(float, range(1, COMPONENTS + 1)))
    trial.plot(
        title="A few directions hold most of what differs between digits",
        x="directions",
        y="share of all differences",
        series=(
            Series("principal components", counts, tuple(shares)),
            Series("any", counts, tuple(n / 64 for n in counts)),
        ),
    )
    flat = cloud @ vectors[:, :2]
    labels = np.concatenate([half.y for half in digits(0)])
    shown = [np.flatnonzero(labels == digit)[:60] for digit in (0, 1, 4, 6)]
    series = tuple(
        Series(str(digit), tuple(flat[at, 0]), tuple(flat[at, 1]))
        for digit, at in zip((0, 1, 4, 6), shown, strict=True)
    )
    title, x, y = "Digits in the plane of the first two", "first component", "second component"
    trial.plot(title=title, x=x, y=y, kind="points", series=series)
    names = tuple(map(str, range(8)))
    first = tuple(map(tuple, vectors[:, 0].reshape(8, 8).tolist()))
    trial.figure(Heat(title="The first component, as a picture", values=first, rows=names, columns=names, signed=True))
