"""A residual network of 50 layers, as ResNet-50 is built, a quarter as wide."""

import torch
from torch import nn

DEPTHS, WIDTHS = (3, 4, 6, 3), (16, 32, 64, 128)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * inner
        self.conv1, self.norm1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.shortcut = shortcut if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes [B, channels, H, W], gives [B, 4 inner, H / stride, W / stride]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        return torch.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def build() -> nn.Module:
    """Images [B, 3, 64, 64] to [B, 100]."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    channels = WIDTHS[0]
    for stage, (depth, inner) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        for at in range(depth):
            layers.append(Bottleneck(channels, inner, 2 if at == 0 and stage > 0 else 1))
            channels = EXPANSION * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 100))
