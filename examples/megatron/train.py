"""A small Megatron-Core training job with a guest: torchrun --nproc-per-node 2 train.py

It trains a GPT of some thousand parameters on random tokens, tensor parallel over all of its ranks, until the file
`stop` appears beside where it runs.
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 torch's own convention
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

import prunebridge_shim

VOCABULARY = 128
SEQUENCE = 32
BATCH = 4


def build():
    """The model, wrapped as Megatron-LM wraps it."""
    config = TransformerConfig(
        num_layers=4,
        hidden_size=64,
        ffn_hidden_size=128,
        num_attention_heads=8,
        num_query_groups=4,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        tensor_model_parallel_size=dist.get_world_size(),
        pipeline_dtype=torch.float32,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
    )
    model = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocab_size=VOCABULARY,
        max_sequence_length=SEQUENCE,
        position_embedding_type="rope",
        share_embeddings_and_output_weights=False,
    )
    if torch.cuda.is_available():
        model = model.cuda()
    model = DistributedDataParallel(config, DistributedDataParallelConfig(), model)
    config.finalize_model_grads_func = finalize_model_grads
    return model


def train_step(model, optimizer):
    """One step on random tokens; gives its loss."""
    model.zero_grad_buffer()
    optimizer.zero_grad()

    def forward(batches, chunk):
        ids = next(batches)
        positions = torch.arange(SEQUENCE, device=ids.device).expand_as(ids)
        losses = chunk(input_ids=ids, position_ids=positions, attention_mask=None, labels=ids.roll(-1, 1))
        return losses, lambda losses: (losses.mean(), {"loss": losses.mean().item()})

    device = "cuda" if torch.cuda.is_available() else "cpu"
    (outcome,) = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=iter([torch.randint(VOCABULARY, (BATCH, SEQUENCE), device=device)]),
        model=[model],
        num_microbatches=1,
        seq_length=SEQUENCE,
        micro_batch_size=BATCH,
    )
    optimizer.step()
    return outcome["loss"]


def main():
    """Trains, with a guest that is asked in between."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=dist.get_world_size())
    model_parallel_cuda_manual_seed(1)
    torch.manual_seed(1)
    model = build()
    optimizer = get_megatron_optimizer(OptimizerConfig(optimizer="adam", lr=1e-3), [model])

    guest = prunebridge_shim.attach(
        model,  # as it was built, wrapped or not; a list of chunks where pipeline stages are virtual
        address="0.0.0.0:7072",
        tls_cert="shim/tls.pem",
        tls_key="shim/tls.key",
        token_file="shim/token",
        roots=["/shared"],
    )
    step = 0
    while not shall_stop():
        loss = train_step(model, optimizer)
        step += 1
        if dist.get_rank() == 0 and step % 100 == 0:
            print(f"step {step}: loss {loss:.4f}", flush=True)
        guest.step()
    guest.detach()
    dist.destroy_process_group()


def shall_stop():
    """Whether the job is to end, on which all ranks agree."""
    stop = torch.tensor(int(Path("stop").exists()), device="cuda" if torch.cuda.is_available() else "cpu")
    dist.broadcast(stop, 0)
    return bool(stop)


if __name__ == "__main__":
    main()
