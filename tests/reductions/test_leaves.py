"""The tree has one shape, whoever builds which part of it."""

from hypothesis import given
from hypothesis import strategies as st

from psana_dask.reductions.leaves import FAN, LEAF, Carry, groups, span, spans


def together(one, two):
    return f"({one} {two})"


def tree(events, level=0):
    """Build the tree of `events` recursively, straight from its definition."""
    nodes = [f"{first}-{last}" for first, last in spans(events, level)]
    while len(nodes) > 1:
        merged = []
        for group in groups(nodes):
            node = group[0]
            for other in group[1:]:
                node = together(node, other)
            merged.append(node)
        nodes = merged
    return nodes[0] if nodes else None


def test_a_node_covers_eight_of_the_level_below():
    assert [span(k) for k in range(4)] == [16, 128, 1024, 8192]
    assert (LEAF, FAN) == (16, 8)


@given(st.integers(0, 5000))
def test_nodes_as_they_come_make_the_tree(events):
    carry = Carry(together)
    for first, last in spans(events, 0):
        if last - first == LEAF:
            carry.push(f"{first}-{last}")
    rest = events % LEAF
    last = f"{events - rest}-{events}" if rest else None
    assert carry.total(last) == tree(events)


@given(st.integers(1, 20_000), st.integers(0, 3))
def test_tasks_of_any_level_make_the_same_tree(events, level):
    def subtree(first, last):
        carry = Carry(together)
        for a, b in spans(last - first, 0):
            if b - a == LEAF:
                carry.push(f"{first + a}-{first + b}")
        rest = (last - first) % LEAF
        return carry.total(f"{last - rest}-{last}" if rest else None)

    nodes = [subtree(first, last) for first, last in spans(events, level)]
    while len(nodes) > 1:
        merged = []
        for group in groups(nodes):
            node = group[0]
            for other in group[1:]:
                node = together(node, other)
            merged.append(node)
        nodes = merged
    assert nodes[0] == tree(events)
