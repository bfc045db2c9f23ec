"""What a user could name as a Python entry point."""

import contextlib
import json
import os
import random
from pathlib import Path
from subprocess import run  # noqa: F401 a test calls it by its name here

import numpy as np
import torch
from torch import nn

Linear = nn.Linear
VERSION = 1


def batches():
    rng = np.random.default_rng(7)
    return [torch.from_numpy(rng.integers(0, 50, (2, 9))) for _ in range(3)]


def forward_loop(model):
    assert not model.training
    assert not torch.is_grad_enabled()
    for ids in batches():
        model(ids)


def loader():
    return batches()


def endless_loader():
    drawn = 0
    while True:
        drawn += 1
        Path(os.environ["DRAWN_FILE"]).write_text(str(drawn))
        yield batches()[0]


def broken_loader():
    yield batches()[0]
    raise OSError("the dataset server is down")


def as_dict(ids):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def as_tuple(ids):
    return (ids, torch.ones_like(ids), {"position_ids": torch.arange(ids.shape[1])[None]})


def as_strange(ids):
    return {"input_ids": ids, "token_type_ids": ids}


def as_unknown_tokens(ids):
    return ids + 1000


def as_mismatched(ids):
    return {"input_ids": ids, "attention_mask": torch.ones(2, 3, 4, 9)}


def idle(model):
    pass


def stubborn(model):
    """Goes on whatever happens, as long as a file is there."""
    while Path(os.environ["GO_ON_FILE"]).exists():
        with contextlib.suppress(Exception):
            model(batches()[0])


def misbehave(model):
    model.train()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model(batches()[0])


def fail(model):
    json.loads("{")


def leave(model):
    raise SystemExit(3)


def score(model):
    return -model(input_ids=batches()[0], labels=batches()[0]).loss


@torch.no_grad()
def without_gradients(model):
    return score(model)


class Judge:
    @classmethod
    def score(cls, model):
        return score(model)


def score_nan(model):
    return float("nan")


def score_text(model):
    return "0.5"


def score_nothing(model):
    return None


def mean_loss(output, batch):
    ids = batch["input_ids"] if isinstance(batch, dict) else batch
    logits = output.logits[:, :-1].reshape(-1, output.logits.shape[-1])
    return nn.functional.cross_entropy(logits, ids[:, 1:].reshape(-1))


def labelled_batches():
    return [{"input_ids": ids, "labels": ids} for ids in batches()]


def as_listed_labels(ids):
    return {"input_ids": ids, "labels": ids.tolist()}


def batches_with_names():
    return [(ids, {"labels": ids}) for ids in batches()]


def loss_by_names(output, batch):
    return mean_loss(output, batch[1]["labels"])


def as_labelled(ids):
    return (ids, {"labels": ids, "attention_mask": torch.ones_like(ids)})


def own_loss(output, batch):
    return output.loss[None]


def loss_vector(output, batch):
    return output.logits.mean(0)


def loss_number(output, batch):
    return output.logits.mean().item()


def loss_detached(output, batch):
    return output.logits.detach().mean()


def loss_that_fails(output, batch):
    return output["logit"].mean()


def mean_logit(output, batch):
    return output.logits.mean()
