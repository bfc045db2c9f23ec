"""Leaves a mark when it is imported; only one function of it is allowed."""


def score(model):
    return 1.0


def other(model):
    return 2.0
