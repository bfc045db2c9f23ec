"""A small residual network for scikit-learn's digits, in plain PyTorch.

`python digits.py train FOLDER` trains it, and writes its weights and all images to FOLDER. `python digits.py tune
CHILD` rebuilds what it was pruned to, trains that for a few epochs, and prints its accuracy.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn

WIDTHS = (8, 16)
EXPANSION = 4
EPOCHS, TUNING_EPOCHS = 12, 3
BATCH = 64


class Block(nn.Module):
    """Two convolutions beside the identity, and more channels between them than come in and go out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.conv1, self.norm1 = nn.Conv2d(channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and gives [B, channels, H, W]."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inner)))


class ResidualNetwork(nn.Module):
    """Images [B, 1, 8, 8] to logits [B, 10]."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        small, large = widths
        self.stem, self.norm = nn.Conv2d(1, small, 3, padding=1, bias=False), nn.BatchNorm2d(small)
        self.stage1 = nn.Sequential(Block(small), Block(small))
        self.down, self.norm_down = nn.Conv2d(small, large, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(large)
        self.stage2 = nn.Sequential(Block(large), Block(large))
        self.head = nn.Linear(large, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Takes [B, 1, 8, 8], gives [B, 10]."""
        x = self.stage1(torch.relu(self.norm(self.stem(images))))
        x = self.stage2(torch.relu(self.norm_down(self.down(x))))
        return self.head(x.mean((2, 3)))


def build(widths: tuple[int, int] = WIDTHS) -> ResidualNetwork:
    """The network, untrained."""
    return ResidualNetwork(widths)


def rebuild(folder: Path) -> nn.Module:
    """A pruned network of its folder."""
    architecture = json.loads((folder / "architecture.json").read_text())
    module, function = architecture["source"]["entrypoint"].split(":")
    network = getattr(importlib.import_module(module), function)(**architecture["source"]["kwargs"])
    for name, sizes in architecture["modules"].items():
        for attribute, size in sizes.items():
            setattr(network.get_submodule(name), attribute, (size,) if attribute == "normalized_shape" else size)
    for name, tensor in load_file(folder / "model.safetensors").items():
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        is_parameter = leaf in dict(module.named_parameters(recurse=False))
        setattr(module, leaf, nn.Parameter(tensor) if is_parameter else tensor)
    return network.eval()


def split() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images [N, 1, 8, 8] and labels [N]: 1,000 to train with, 397 to judge candidates by, 400 to test with."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = dict(zip(("train", "judge", "test"), order.split([1000, 397, 400]), strict=True))
    return {name: (images[part], labels[part]) for name, part in parts.items()}


def fit(network: nn.Module, epochs: int, rate: float) -> None:
    """Trains a network by cross entropy, with images shifted by up to a pixel."""
    images, labels = split()["train"]
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(labels) // BATCH))
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            shift = tuple(torch.randint(-1, 2, (2,)).tolist())
            loss = nn.functional.cross_entropy(network(images[batch].roll(shift, (2, 3))), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """The share of test images that a network knows."""
    images, labels = split()["test"]
    return float((network(images).argmax(1) == labels).float().mean())


def train(folder: Path, epochs: int) -> None:
    """Trains the network, and writes it and the images that it is judged by and tested with."""
    torch.manual_seed(0)
    network = build()
    fit(network, epochs, 3e-3)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    parts = {
        f"{name}.{kind}": tensor
        for name, part in split().items()
        for kind, tensor in zip(("images", "labels"), part, strict=True)
    }
    save_file({name: tensor.contiguous() for name, tensor in parts.items()}, folder / "images.safetensors")


if __name__ == "__main__":
    # Layers as small as these are done before a second thread has begun.
    torch.set_num_threads(1)
    command, folder, *rest = sys.argv[1:]
    if command == "train":
        train(Path(folder), int(rest[0]) if rest else EPOCHS)
    else:
        child = rebuild(Path(folder))
        fit(child, int(rest[0]) if rest else TUNING_EPOCHS, 1e-3)
        sys.stdout.write(f"{accuracy(child)}\n")
