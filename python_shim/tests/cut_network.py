"""Which channels of a traced network stay."""

import numpy as np


def most_important(facts, sizes):
    """For each group the channels that stay, ascending: as many of each section; `sizes` by the group's number."""
    return [top(group, sizes.get(number, group.channels)) for number, group in enumerate(facts.groups)]


def top(group, count):
    by_section = group.importance.reshape(group.sections, -1)
    order = np.argsort(-by_section, axis=1, kind="stable")[:, : count // group.sections]
    begin = np.arange(group.sections)[:, None] * by_section.shape[1]
    return np.sort((begin + order).flatten()).tolist()
