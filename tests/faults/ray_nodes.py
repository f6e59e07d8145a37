"""Nodes of a Ray cluster that are all on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ray_nodes(count: int, **resources: int) -> Iterator[tuple[Any, list[Any]]]:
    """A Ray cluster of so many nodes, each of which believes that it has these resources (`num_gpus=8`), and those of
    them that may be lost: all but its head. Ray's token has to be in the environment before Ray is imported."""
    from ray.cluster_utils import Cluster  # reads the token

    # Ray takes 127.0.0.1 for another address.
    head, *others = ({"num_cpus": 1, "node_ip_address": f"127.0.0.{2 + n}", **resources} for n in range(count))
    cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    try:
        yield cluster, [cluster.add_node(**node) for node in others]
    finally:
        cluster.shutdown()
