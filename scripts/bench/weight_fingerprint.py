"""A number that tells a model's weights from others: what a score function may return."""

import hashlib

import torch


def weight_fingerprint(model):
    """48 bits of SHA-256 over every parameter and buffer, which a float holds exactly."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return float(int.from_bytes(digest.digest()[:6], "big"))
