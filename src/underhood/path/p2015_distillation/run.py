"""Hinton, Vinyals and Dean 2015: a small network learns from the softened probabilities of a large one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.align.distillation import soft_label_loss
from underhood.align.divergence import ForwardKL
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.path.lib.seed_series import over_seeds
from underhood.train.image_trainer import ImageTrainer

LABELLED, WITHHELD = 200, 3
TEMPERATURE, BATCH = 4.0, 64
BIASES = torch.arange(0.0, 12.25, 0.25)
ARMS = ("soft, all", "200 labels", "soft, same 200", "first choices, all", "soft, shuffled")


def run(trial: Trial) -> None:
    errors: list[list[float]] = []
    for seed in trial.each_seed():
        trial.measure("limit", gradient_difference(seed, squared=not trial.ablated("squared")))
        if not trial.wants("unlabelled"):
            continue
        train, test = (framed(pictures) for pictures in digits(seed))
        teacher = taught(trial, train, seed)
        with torch.no_grad():
            scores_NC = teacher(train[0])
        errors.append(whole_classes(trial, train, test, scores_NC, seed))
        if trial.wants("withheld"):
            withheld_class(trial, train, test, scores_NC, seed)
            errors[-1].append(1 - right(teacher, test))
    if trial.wants("over_hard"):
        names = (*ARMS, "teacher")
        trial.plot(
            title="What 64 and 64 units learn from, and the errors that they make",
            x="learnt from",
            y="share of errors, new pictures",
            kind="bars",
            names=names,
            series=[over_seeds("mean and range over seeds", list(map(list, zip(*errors, strict=True))))],
        )


def gradient_difference(seed: int, *, squared: bool) -> float:
    """Largest difference of the gradient at T = 10,000 from that of half the mean squared difference of the scores."""
    generator = torch.Generator().manual_seed(seed)
    teacher_NC, student_NC = torch.randn(2, 50, 10, generator=generator, dtype=torch.float64)
    student_NC.requires_grad_()
    loss = soft_label_loss(teacher_NC, student_NC, divergence=ForwardKL(), temperature=1e4).sum()
    [grad_NC] = torch.autograd.grad(loss if squared else loss / 1e8, student_NC)
    difference_NC = student_NC.detach() - teacher_NC
    return float((grad_NC - (difference_NC - difference_NC.mean(1, keepdim=True)) / 10).abs().max())


def taught(trial: Trial, train: tuple[Tensor, Tensor], seed: int) -> nn.Module:
    """The teacher: a convolutional network that has all labels."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    if trial.ablated("teacher"):
        return net.eval()
    return ImageTrainer(passes=25, batch=64, lr=3e-3, adam=True, shifts=True)(net, train, trial.progress)


def student_of(x_N: Tensor, targets_NC: Tensor, seed: int, steps: int, temperature: float) -> nn.Module:
    """The student: two layers of 64 units, trained on a teacher's scores, or on labels as very sure scores at T = 1."""
    torch.manual_seed(seed + 1000)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        at_B = torch.randint(len(x_N), (BATCH,))
        loss = soft_label_loss(targets_NC[at_B], net(x_N[at_B]), divergence=ForwardKL(), temperature=temperature).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimizer.step()
    return net.eval()


def sure(y_N: Tensor) -> Tensor:
    """Labels as scores: all probability on the class."""
    return 100.0 * F.one_hot(y_N, 10).float()


@torch.no_grad()
def right(net: nn.Module, data: tuple[Tensor, Tensor], bias_C: Tensor | float = 0.0) -> float:
    return float(((net(data[0]) + bias_C).argmax(1) == data[1]).float().mean())


def whole_classes(
    trial: Trial, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], scores_NC: Tensor, seed: int
) -> list[float]:
    """The errors of students that learn from labels, soft labels and controls."""
    (x, y), steps = train, trial.by_scale(smoke=500, report=1500)
    shuffle = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    few = slice(0, LABELLED)
    data = [(x, scores_NC, TEMPERATURE)]
    if trial.wants("over_hard"):
        data += [
            (x[few], sure(y[few]), 1.0),
            (x[few], scores_NC[few], TEMPERATURE),
            (x, sure(scores_NC.argmax(1)), 1.0),
            (x, scores_NC[shuffle], TEMPERATURE),
        ]
    errors = [1 - right(student_of(pictures, targets, seed, steps, t), test) for pictures, targets, t in data]
    trial.measure("unlabelled", 1 - errors[0])
    if len(errors) > 1:
        soft, labels, same, hard, shuffled = errors
        trial.measure("helps", labels - soft)
        trial.measure("same_pictures", labels - same)
        trial.measure("over_hard", hard - soft)
        trial.measure("shuffled", 1 - shuffled)
    return errors


def withheld_class(
    trial: Trial, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], scores_NC: Tensor, seed: int
) -> None:
    """Measures how many pictures of a class are read of which the student has seen none."""
    (x, y), steps = train, trial.by_scale(smoke=500, report=1500)
    kept = y != WITHHELD
    threes = tuple(tensor[test[1] == WITHHELD] for tensor in test)
    soft = student_of(x[kept], scores_NC[kept], seed, steps, TEMPERATURE)
    hard = student_of(x[kept], sure(scores_NC[kept].argmax(1)), seed, steps, 1.0)
    of_class_C = F.one_hot(torch.tensor(WITHHELD), 10).float()
    best = max(BIASES, key=lambda bias: right(soft, train, bias * of_class_C))
    trial.measure("withheld", right(soft, (threes[0], threes[1])))
    trial.measure("corrected", right(soft, (threes[0], threes[1]), best * of_class_C))
    trial.measure("withheld_hard", right(hard, (threes[0], threes[1])))
    before, after = right(soft, test), right(soft, test, best * of_class_C)
    trial.note(
        f"Seed {seed}: a bias of {float(best):.2f} for the withheld class; with it {after:.1%} of all new pictures are "
        f"read, without it {before:.1%}."
    )
