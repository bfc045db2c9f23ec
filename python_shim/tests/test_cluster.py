"""What of a job's ranks can be known without any."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import HashStore

from prunebridge_shim.cluster.assemble import Piece, assemble
from prunebridge_shim.cluster.exchange import AgreedError, Exchange
from prunebridge_shim.cluster.forward import without_graphs
from prunebridge_shim.cluster.hooks import Hooks
from prunebridge_shim.cluster.layout import Layout, LocalModel, Place
from prunebridge_shim.cluster.measures import Measures, MicroBatch, Sum, TokenGroups, squared_means
from prunebridge_shim.cluster.points import hold
from prunebridge_shim.cluster.spread import rounds, share_of, teams_of
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.errors import Reason, ShimError


def layouts_of(**sizes):
    """All ranks of a job in Megatron-Core's order: tensor, context, data and pipeline parallel, the first fastest."""
    ways = ("tensor", "context", "data", "pipeline", "expert", "expert_tensor")
    tensor, context, data, pipeline, expert, expert_tensor = (sizes.get(way, 1) for way in ways)
    stage = tensor * context * data
    alone = tensor * context
    together = expert * expert_tensor
    made = []
    for rank in range(stage * pipeline):
        at, first = rank % stage, rank - rank % stage
        tp, cp, dp = at % tensor, at // tensor % context, at // alone
        made.append(
            Layout(
                rank=rank,
                tensor=Place(tp, tensor),
                pipeline=Place(rank // stage, pipeline),
                data=Place(dp, data),
                context=Place(cp, context),
                expert=Place(at // expert_tensor % expert, expert),
                expert_tensor=Place(at % expert_tensor, expert_tensor),
                expert_data=Place(at // together, stage // together),
                context_ranks=tuple(first + dp * alone + each * tensor + tp for each in range(context)),
                sequence_ranks=tuple(range(first + dp * alone, first + (dp + 1) * alone)),
                expert_ranks=tuple(range(rank - at % together, rank - at % together + together)),
            )
        )
    return made


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize(
    ("sizes", "teams"),
    [
        ({}, 1),
        ({"data": 4}, 4),
        ({"tensor": 2, "data": 2, "pipeline": 2}, 2),
        ({"data": 4, "expert": 2}, 2),
        ({"data": 4, "expert": 4}, 1),
        ({"tensor": 2, "data": 4, "expert": 4}, 2),
        ({"tensor": 2, "context": 2, "data": 2, "expert": 2, "expert_tensor": 2, "pipeline": 3}, 2),
    ],
)
def test_every_sequence_is_run_as_often_as_it_is_divided_by(sizes, teams, rows):
    layouts = layouts_of(**sizes)
    batches = [np.full((rows, 3), number) + 100 * np.arange(rows)[:, None] for number in range(2 * teams)]
    runs, micro_batches = Counter(), set()
    for layout in layouts:
        share = share_of(layout, layouts, teams_of(layouts))
        assert share.teams == teams
        mine = share.mine(batches)
        micro_batches.add((len(mine), mine[0].shape))
        for sequence in np.concatenate(mine):
            runs[layout.pipeline.rank, int(sequence[0])] += 1 / share.repeats(rows)
    assert len(micro_batches) == 1
    alike = sizes.get("tensor", 1) * sizes.get("context", 1)
    assert len(runs) == 2 * teams * rows * sizes.get("pipeline", 1)
    assert all(count == pytest.approx(alike) for count in runs.values())


@pytest.mark.parametrize("sizes", [{"data": 4, "expert": 4}, {"tensor": 2, "data": 4, "expert": 4}])
def test_tokens_that_meet_at_an_expert_are_of_one_batch(sizes):
    layouts = layouts_of(**sizes)
    batches = [np.full((2, 3), number) for number in range(8)]
    for layout in layouts:
        met = [share_of(layouts[rank], layouts, teams_of(layouts)) for rank in layout.expert_ranks]
        numbers = [[int(part[0, 0]) for part in share.mine(batches)] for share in met]
        assert all(each == numbers[0] for each in numbers)


def test_rounds_hold_batches_of_one_shape_and_are_filled_up():
    shapes = [(2, 4), (2, 4), (2, 4), (2, 5), (2, 4)]
    made = list(rounds((np.full(shape, number) for number, shape in enumerate(shapes)), 2, 2))
    assert [[int(batch[0, 0]) for batch in batches] for batches, _ in made] == [[0, 1], [2, 2], [3, 3], [4, 4]]
    assert [counted for _, counted in made] == [2, 1, 1, 1]


class Graphed(nn.Module):
    """A layer as Megatron-Core has it with CUDA graphs: what replays them stands in for it, and calls no hook."""

    def __init__(self):
        super().__init__()
        self.before = nn.Identity()
        self.cudagraph_manager = nn.Identity()
        self.after = nn.Identity()


def test_graphs_are_put_aside_and_come_back_where_they_were():
    model = nn.Sequential(Graphed(), nn.Identity())
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ZeroDivisionError), without_graphs(model):
        assert not hasattr(model[0], "cudagraph_manager")
        raise ZeroDivisionError
    assert [name for name, _ in model.named_modules()] == names
    assert hasattr(model[0], "cudagraph_manager")


class Fused(nn.Linear):
    """A projection with the norm before it, under Transformer Engine's names."""

    def __init__(self, normalization):
        super().__init__(6, 4)
        self.normalization, self.eps, self.zero_centered_gamma = normalization, 1e-5, True
        self.layer_norm_weight, self.layer_norm_bias = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))


class IdentityOp(nn.Identity):
    """What Megatron-Core puts where a layer has no module."""


@pytest.mark.parametrize("normalization", ["RMSNorm", "LayerNorm"])
def test_a_norm_that_is_one_with_its_projection(normalization):
    fused = Fused(normalization)
    modules = {"l.input_layernorm": IdentityOp(), "l.self_attention.linear_qkv": fused}
    (held,) = hold([HookPoint("k", "l.input_layernorm", "mean_abs_square_out")], modules, layouts_of()[0])
    x = torch.randn(3, 2, 6, dtype=torch.float64)
    centred = x - x.mean(-1, keepdim=True) if normalization == "LayerNorm" else x
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (1 + fused.layer_norm_weight)
    if normalization == "LayerNorm":
        expected = expected + fused.layer_norm_bias
    assert held.module is fused
    assert torch.allclose(held.norm(x), expected, rtol=1e-6)


def test_where_there_is_no_norm_none_is_measured():
    modules = {"l.input_layernorm": IdentityOp(), "l.self_attention.linear_qkv": nn.Linear(6, 4)}
    with pytest.raises(ShimError, match=r"l\.input_layernorm does nothing, and no projection") as caught:
        hold([HookPoint("k", "l.input_layernorm", "mean_abs_square_out")], modules, layouts_of()[0])
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_outputs_in_blocks_on_several_ranks_are_refused():
    module = nn.Linear(6, 4)
    module.weight.partition_dim = 0
    point = HookPoint("k", "l.mixer.in_proj", "mean_abs_square_out")
    assert hold([point], {point.module: module}, layouts_of()[0])
    with pytest.raises(ShimError, match="parts of several blocks") as caught:
        hold([point], {point.module: module}, layouts_of(tensor=2)[0])
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_micro_batches_that_do_not_count_leave_zeros():
    measures = Measures()
    for counts in (False, True, False):
        measures.add(Sum("k", torch.full((2, 3), 6.0), torch.tensor(3.0), squared_means), None)
        measures.end_micro_batch(counts)
    assert torch.equal(measures.sums["k"], torch.full((3,), 8.0))


@pytest.fixture
def alone():
    """The group of a job's only rank."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_fc2 = nn.Linear(4, 3)


class Experts(nn.Module):
    """Experts as Megatron-Core runs them, without what is before their last projection."""

    def __init__(self):
        super().__init__()
        self.num_local_experts = 2
        self.local_experts = nn.ModuleList([Expert(), Expert()])

    def forward(self, x, tokens):
        parts = zip(self.local_experts, x.split(tokens.tolist()), strict=True)
        return torch.cat([expert.linear_fc2(part) for expert, part in parts]), None


def test_hooks_that_measure_the_same_of_experts_all_get_it(alone):
    model = nn.Sequential()
    model.experts = Experts()
    points = [HookPoint(key, "experts", "routed_mean_abs_square") for key in "ab"]
    points += [HookPoint(key, "experts", "routed_output_norm") for key in "cd"]
    hooks = Hooks(TokenGroups(alone, alone, None, alone), copies=1)
    hooks.running = MicroBatch(1, 5, 1, 1, counts=True)
    x = torch.randn(5, 4)
    model.forward = lambda: model.experts(x, torch.tensor([2, 3]))
    with torch.no_grad(), hooks.attached(hold(points, {"experts": model.experts}, layouts_of()[0]), [model]):
        model()
    squares = torch.stack([x[:2].abs().mean(0), x[2:].abs().mean(0)]).square()
    for key in "ab":
        assert torch.allclose(hooks.measures.sums[key], squares)
    assert torch.equal(hooks.measures.sums["c"], hooks.measures.sums["d"])
    assert hooks.measures.sums["c"].shape == (2,)


@pytest.mark.parametrize(
    ("error", "reason"), [(KeyError("weight"), Reason.INTERNAL), (torch.OutOfMemoryError("no room"), Reason.GPU_OOM)]
)
def test_whatever_an_attempt_raises_is_agreed_on(alone, error, reason):
    def work():
        raise error

    exchange = Exchange()
    with pytest.raises(AgreedError, match=f"rank 0: {type(error).__name__}: ") as caught:
        exchange.attempt(work)
    assert caught.value.reason is reason
    assert exchange.gather_everywhere("still together") == ["still together"]


def test_pieces_are_joined_by_row_and_column():
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    pieces = [
        Piece("e", row, column, whole[2 * row : 2 * row + 2, 3 * column : 3 * column + 3])
        for column in (1, 0)
        for row in (1, 0)
    ]
    pieces += [Piece("n", 1, 0, whole[2:, 0]), Piece("n", 0, 0, whole[:2, 0]), Piece("s", 0, 0, whole[0, 0])]
    joined = assemble(pieces)
    assert np.array_equal(joined["e"].array, whole)
    assert np.array_equal(joined["n"].array, whole[:, 0])
    assert joined["s"].shape == ()


class Decoder(nn.Module):
    def __init__(self, numbers):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(nn.Module() for _ in numbers)
        for layer, number in zip(self.decoder.layers, numbers, strict=True):
            layer.layer_number = number + 1
            layer.experts = nn.Module()
            layer.experts.local_experts = nn.ModuleList(nn.Identity() for _ in range(2))


def test_modules_have_the_names_of_the_whole_model():
    wrapper = nn.Module()
    wrapper.module = Decoder([2, 3])
    (layout,) = [each for each in layouts_of(data=4, expert=4) if each.expert.rank == 3]
    model = LocalModel([Decoder([0]), wrapper], layout)
    assert model.modules["decoder.layers.3"] is wrapper.module.decoder.layers[1]
    experts = [name for name in model.modules if "local_experts." in name]
    assert experts == [f"decoder.layers.{layer}.experts.local_experts.{each}" for layer in (0, 2, 3) for each in (6, 7)]
