"""`framework_jobs.py FRAMEWORK FOLDER`: a job of one rank whose training loop is a framework's, with a guest."""

import json
import logging
import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from cpu import on_cpu
from guests import await_file, write
from megatron.core import parallel_state as ps
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from parents import build, calibration_of

import prunebridge_shim

PARENT = "llama-gqa"
STEPS = 3


class Loader(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(calibration_of(PARENT))


def lightning(model, options, told):
    import lightning.pytorch as pl

    from prunebridge_shim.callbacks.lightning import AttachCallback

    class Telling(pl.Callback):
        def on_train_batch_start(self, trainer, *_args):
            told(trainer.callbacks, trainer.global_step)

    class Module(pl.LightningModule):
        """As NeMo's holds a model. Its optimizer leaves weights alone: scores stay the golden ones."""

        def __init__(self):
            super().__init__()
            self.module = model

        def forward(self, input_ids, position_ids, attention_mask=None, labels=None):
            return self.module(input_ids, position_ids, attention_mask, labels=labels)

        def training_step(self, ids):
            return self(ids, torch.arange(ids.shape[1]).expand(ids.shape), labels=ids.roll(-1, 1)).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[AttachCallback(**options), Telling()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # As NeMo's strategy has it: the chunks, each within what wraps it.
    module = Module()
    trainer.strategy.megatron_parallel = torch.nn.ModuleList([module])
    trainer.fit(module, torch.utils.data.DataLoader(Loader(), batch_size=None))


def bridge(model, options, told):
    package = types.ModuleType("megatron.bridge.training.callbacks")
    package.Callback = type("Callback", (), {})
    for name in ("megatron.bridge", "megatron.bridge.training", package.__name__):
        sys.modules[name] = package
    from prunebridge_shim.callbacks.bridge import AttachCallback

    callback, context = AttachCallback(**options), SimpleNamespace(model=[model])
    callback.on_train_start(context)
    for step in range(STEPS):
        told([callback], step)
        callback.on_train_step_end(context)
    callback.on_train_end(context)


def forgetful(model, options, told):
    """A script that ends while a client waits, and never detaches."""
    guest = prunebridge_shim.attach(model, **options)
    told([SimpleNamespace(_guest=guest)], 1)


def main():
    framework, folder = sys.argv[1], Path(sys.argv[2])
    on_cpu()
    logging.basicConfig(level="INFO")
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    ps.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    (model,) = build(PARENT, {})

    def told(callbacks, step):
        """Before the second step, waits until a client has asked."""
        if step == 1:
            (address,) = (one._guest.address for one in callbacks if hasattr(one, "_guest"))
            write(folder / "ready", json.dumps({"address": address}))
            await_file(folder / "asked")

    options = {"address": "127.0.0.1:0", "token_file": folder / "token", "roots": [folder]}
    {"lightning": lightning, "bridge": bridge, "forgetful": forgetful}[framework](model, options, told)
    write(folder / "done", "done")


if __name__ == "__main__":
    main()
