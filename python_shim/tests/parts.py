"""Tensors of a child that are cut from one tensor each."""

from prunebridge_shim.slicing.request import TensorPart, TensorSlice


def cut_of(name, *part):
    return TensorSlice(name, (TensorPart(*part),))
