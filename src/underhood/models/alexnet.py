"""AlexNet (Krizhevsky, Sutskever & Hinton 2012): eight layers on two graphics cards, 60,965,224 weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class AlexNet(nn.Module):
    """Reads pictures of 227 × 227 (the paper says 224, which does not give its own 55 × 55); a thousand outputs.

    Args:
        groups: 2 as in the paper, where layers 2, 4 and 5 see only the maps on their own card; 1 joins them.
    """

    def __init__(self, groups: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=groups)
        self.fc6, self.fc7, self.fc8 = nn.Linear(256 * 6 * 6, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)
        self.norm, self.dropout = LocalResponse(), nn.Dropout(0.5)

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1000"]:
        """Logits; pooling windows of 3 overlap with a stride of 2."""
        x = F.max_pool2d(self.norm(self.conv1(x).relu()), 3, 2)
        x = F.max_pool2d(self.norm(self.conv2(x).relu()), 3, 2)
        x = self.conv4(self.conv3(x).relu()).relu()
        x = F.max_pool2d(self.conv5(x).relu(), 3, 2).flatten(1)
        x = self.fc6(self.dropout(x)).relu()
        x = self.fc7(self.dropout(x)).relu()
        return self.fc8(x)


class LocalResponse(nn.Module):
    """Response normalisation across channels (section 3.3): a / (k + α Σ a²)^β over n neighbouring channels.

    α multiplies the sum as the paper prints it; libraries that divide it by n need n α to agree.
    """

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75):
        super().__init__()
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, a: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """Each unit divided by how active the same place is in channels beside it."""
        half = self.n // 2
        padded = F.pad(a.square(), (0, 0, 0, 0, half, half))
        channels = a.shape[1]
        sums = torch.stack([padded[:, i : i + channels] for i in range(self.n)]).sum(0)
        return a / (self.k + self.alpha * sums) ** self.beta
