"""The one training loop of the torch models: AdamW, a one-cycle learning rate, fixed seed and epochs."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from digits import Split

Weights = dict[str, NDArray[np.float32]]
Transform = Callable[[torch.Tensor], torch.Tensor]


def train(
    net: nn.Module, split: Split, *, epochs: int, rate: float = 4e-3, augment: Transform | None = None
) -> None:
    """Fit ``net`` (images [n, 1, 8, 8] -> logits [n, 10]) in place and leave it in evaluation mode."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    batch = 64
    steps = epochs * -(-len(labels) // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    net.train()
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(batch):
            chosen = images[index] if augment is None else augment(images[index])
            optimizer.zero_grad()
            loss_of(net(chosen), labels[index]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    net.eval()


def shift(images: torch.Tensor) -> torch.Tensor:
    """Move the whole batch by up to one pixel in each direction."""
    rows, columns = (int(offset) for offset in torch.randint(-1, 2, (2,)))
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return padded[..., 1 + rows : 9 + rows, 1 + columns : 9 + columns]


def weights(net: nn.Module) -> Weights:
    """All parameters and buffers as numpy arrays."""
    return {name: value.detach().numpy() for name, value in net.state_dict().items()}
