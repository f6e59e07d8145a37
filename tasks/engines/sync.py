"""Weights from the trainer to the rollout engines, and the proof that they arrived."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.engines.cluster import Engines
from tasks.workers.weight_sync import Layout, ProbeDifference, Proof


def sync_engines(engines: Engines, version: int, probe: Sequence[int], tolerance: float) -> ProbeDifference:
    """Sends, receives, compares what every engine proves; returns the largest probe difference. Raises RuntimeError
    when an engine does not hold the trainer's weights, or does not compute with them: to go on would be to train on
    samples of another policy."""
    [layouts] = engines.of_rollouts([engines.rollouts[0].weight_layouts.remote()])
    expected, proofs = _transferred(engines, layouts, version, probe)
    differences = []
    for number, found in enumerate(proofs):
        differences.append(expected.probe_difference(found))
        if faults := expected.faults(found):
            raise RuntimeError(
                f"rollout engine {number} does not hold the trainer's weights: {'; '.join(faults)}. To go on would be "
                "to train on samples of another policy"
            )
        if not differences[-1].within(tolerance):
            raise RuntimeError(
                f"rollout engine {number} holds the trainer's weights, but computes other log-probabilities: over the "
                f"probe they differ by {differences[-1].mean:.2e} nats on average, 90th percentile "
                f"{differences[-1].high:.2e} (cluster.sync_tolerance={tolerance:g} limits the mean, four times as much "
                "the percentile)"
            )
    return max(differences, key=lambda difference: difference.mean)


def _transferred(
    engines: Engines, layouts: Sequence[Layout], version: int, probe: Sequence[int]
) -> tuple[Proof, list[Proof]]:
    """What every engine has to hold and compute, and what each says that it does."""
    with engines.transfer(version) as transfer:
        engines.turn_of("ranks")
        sending = [rank.send_weights.remote(transfer, layouts) for rank in engines.trainers]
        probing = [rank.probe.remote(probe) for rank in engines.trainers]
        if not transfer.together:
            engines.of_ranks(sending)
            engines.turn_of("engines")
        receiving = [
            engine.receive_weights.remote(transfer, 1 + number * len(layouts), version, probe)
            for number, engine in enumerate(engines.rollouts)
        ]
        # All are asked at the same time: one that is lost leaves the others waiting for it.
        ranks, proofs = engines.of_both([*sending, *probing], receiving)
    return Proof(version, ranks[0], tuple(ranks[len(sending)])), proofs
