import os
import pickle
import resource
import struct
from collections import OrderedDict

import numpy as np
import pytest

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_pickle import Persistent, Record, read_pickle
from prunebridge_shim.slicing.torch_dist_pickling import Name, write_pickle

KNOWN = frozenset({"collections.OrderedDict", "torch.Size", "a.Thing"})


class Runs:
    """What runs a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def refuse(data, match):
    with pytest.raises(ShimError, match=match) as error:
        read_pickle(data, KNOWN, "the file")
    assert error.value.reason is Reason.BAD_CHECKPOINT


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (os.system, "touch {}", r"posix\.system"),
        (eval, "__import__('pathlib').Path({!r}).touch()", r"(builtins|__builtin__)\.eval"),
        (exec, "__import__('pathlib').Path({!r}).touch()", r"(builtins|__builtin__)\.exec"),
    ],
)
def test_runs_nothing(tmp_path, protocol, function, argument, named):
    ran = tmp_path / "ran"
    hostile = pickle.dumps({"tensors": [Runs(function, argument.format(str(ran)))]}, protocol)
    refuse(hostile, f"holds {named}, which is no class")
    assert not ran.exists()
    pickle.loads(hostile)
    assert ran.exists()


def test_names_what_it_does_not_know():
    refuse(pickle.dumps(np.float32(1.5), 2), r"holds numpy\.\S+\.scalar")
    refuse(pickle.dumps(Runs(os.system, "true"), 0), "has the opcode (PUT|UNICODE)")
    refuse(b"\x80\x02(ios\nsystem\n.", "has the opcode INST")
    refuse(b"\x80\x02\x82\x01.", "has the opcode EXT1")


def test_reads_data():
    data = {
        "a": [1, -1, 2**40, 10**30, 1.5, None, True, (), (1, 2, 3, 4)],
        "b": OrderedDict(x="é"),
        "c": b"raw",
        "d": {1},
    }
    for protocol in (4, 5):
        assert read_pickle(pickle.dumps(data, protocol), KNOWN, "the file") == data
    thing = Name("a", "Thing")
    stored = Persistent(("storage", thing, "0"))
    read = read_pickle(
        write_pickle([thing(1, "x"), thing.holding(n=None), stored, {"k": (False, 2.5)}]), KNOWN, "the file"
    )
    made, held, outside, plain = read
    assert isinstance(made, Record)
    assert (made.name, made.args) == ("a.Thing", (1, "x"))
    assert held.state == {"n": None}
    assert outside.id[0::2] == ("storage", "0")
    assert plain == {"k": (False, 2.5)}


def test_every_shortened_pickle_is_refused():
    whole = write_pickle({"a": [Name("a", "Thing")(1, 2), "text", 300]})
    for length in range(len(whole)):
        refuse(whole[:length], "the file")


def test_depth_costs_no_stack():
    depth = 200_000
    nested = read_pickle(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", KNOWN, "the file")
    assert isinstance(nested, list)
    refuse(b"\x80\x02" + b"(" * depth + b".", "cannot be read")


def test_a_large_memo_index_takes_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(b"\x80\x02Nr" + struct.pack("<I", 1 << 28) + b".", "stores a value at 268435456")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_class_in_place_of_an_object_is_refused():
    refuse(b"\x80\x02ca\nThing\n}b.", "cannot be read")
    refuse(b"\x80\x02ca\nThing\n)R(K\x01K\x02u.", "cannot be read")


PAIR, AS_KEY = b"\x86", b"Ns"


def put(index):
    return b"r" + struct.pack("<I", index)


def get(index):
    return b"j" + struct.pack("<I", index)


def twice(index):
    """The opcodes that store a value and make a pair of it."""
    return put(index) + get(index) + PAIR


def size_twice(index):
    """The opcodes that store a tuple and leave a size of twice the tuple above it."""
    return put(index) + b"ctorch\nSize\n" + get(index) * 2 + PAIR + b"\x85R"


@pytest.mark.parametrize(
    "nested",
    [
        b")" + b"\x85" * 400_000,
        b")" + b"".join(map(twice, range(40))),
        b")" + b"".join(map(size_twice, range(40))) + put(40) + b"}" + get(40),
        b")" + b"(e".join(map(twice, range(40))),
        b")" + b"Nb".join(map(twice, range(40))),
    ],
    ids=["deep", "shared", "sizes", "appended-to", "given-a-state"],
)
def test_tuples_within_tuples_cost_no_stack_and_no_time(nested):
    refuse(b"\x80\x02}" + nested + AS_KEY + b".", "has more than 10,000 tuples within one")


def test_keys_that_are_alike_all_the_way_down_are_refused():
    deep = b")" + b"\x85" * 9000
    refuse(b"\x80\x02}" + (deep + AS_KEY) * 2 + b".", "cannot be read: maximum recursion")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (b"ccollections\nOrderedDict\n" + get(0) + b"\x85R", "takes 0 positional arguments"),
        (b"ctorch\nSize\n" + get(0) + b"\x85R", "a torch.Size is made of something other than a tuple"),
        (b"ca\nThing\n(" + b"N" * 1000 + b"tR", "a.Thing is given 1000 arguments"),
    ],
    ids=["dictionary", "size", "record"],
)
def test_what_copies_is_not_called(call, said):
    refuse(b"\x80\x02](NNe" + put(0) + call + b".", f"cannot be read: .*{said}")


def test_reads_keys_of_many_sizes():
    keys = {tuple((at, (at,)) for at in range(count)): count for count in range(0, 3000, 500)}
    for protocol in (2, 5):
        assert read_pickle(pickle.dumps(keys, protocol), KNOWN, "the file") == keys
