"""Small networks of each kind that tracing has to follow."""

import torch
from torch import nn


class Plain(nn.Sequential):
    """Convolutions and linear layers one after the other, flattened between them."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 6 * 6, 20),
            nn.ReLU(),
            nn.Linear(20, 5),
        )


class Residual(nn.Module):
    """A stem and two blocks whose outputs are added to what they take."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Depthwise(nn.Module):
    """MobileNet's block: wider, each channel by itself, narrower."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.expand(x)))
        x = self.project(torch.relu(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


class Concatenating(nn.Module):
    """Two branches side by side, and a third layer's outputs beside both of them."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 10, 1)
        self.norm = nn.BatchNorm2d(16)
        self.both = nn.Conv2d(16, 4, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.head(torch.cat([x, self.both(x)], 1).mean((2, 3)))


class FlattenedBranches(nn.Module):
    """Two branches that are joined, and flattened with their pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 1)
        self.left, self.right = nn.Conv2d(7, 6, 3, padding=1), nn.Conv2d(7, 10, 1)
        self.head = nn.Linear(16 * 4, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 2), 1))


class Grouped(nn.Module):
    """A grouped convolution between two plain ones."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped, self.norm = nn.Conv2d(12, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.grouped(torch.relu(self.first(x)))))
        return self.head(x.mean((2, 3)))


class Upsampling(nn.Module):
    """A transposed convolution, and a map that leaves the network beside the scores made of it."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.scores = nn.Conv2d(6, 5, 1)

    def forward(self, x):
        features = torch.relu(self.up(torch.relu(self.down(x))))
        return {"features": features, "scores": self.scores(features).mean((2, 3))}


class Gated(nn.Module):
    """Two halves of one projection, of which one gates the other."""

    def __init__(self):
        super().__init__()
        self.project, self.head = nn.Linear(12, 32), nn.Linear(16, 5)

    def forward(self, x):
        value, gate = self.project(x.flatten(1)[:, :12]).chunk(2, -1)
        return self.head(value * torch.sigmoid(gate))


class Attending(nn.Module):
    """Attention, whose heads are cut by no one, beside a feed-forward block."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 5)
        nn.init.normal_(self.query.weight)
        nn.init.normal_(self.key.weight)

    def forward(self, x):
        x = self.embed(x.flatten(2)[..., :12])
        heads = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        x = x + nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.head((x + self.down(torch.relu(self.up(x)))).mean(1))


NETWORKS = [Plain, Residual, Depthwise, Concatenating, FlattenedBranches, Grouped, Upsampling, Gated, Attending]


def randomized(network):
    """The network in eval mode, with statistics as if it was trained."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()
