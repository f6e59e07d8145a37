"""Weights from the trainer to the rollout engines, and the proof that they arrived."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.engines.cluster import Engines
from tasks.workers.weight_sync import ProbeDifference, Proof


def sync_engines(engines: Engines, version: int, probe: Sequence[int], tolerance: float) -> ProbeDifference:
    """Exports, loads, compares what every engine proves; returns the largest probe difference. Raises RuntimeError when
    an engine does not hold the trainer's weights, or does not compute with them: to go on would be to train on samples
    of another policy."""
    path = engines.sync_dir / f"policy-{version}.safetensors"
    [layouts] = engines.of_rollouts([engines.rollouts[0].weight_layouts.remote()])
    digests = engines.on_all_ranks("export", str(path), layouts)
    loading = [engine.load_weights.remote(str(path), version, probe) for engine in engines.rollouts]
    expected = Proof(version, digests[0], tuple(engines.on_all_ranks("probe", probe)[0]))
    differences = []
    for number, found in enumerate(engines.of_rollouts(loading)):
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
    path.unlink()
    return max(differences, key=lambda difference: difference.mean)
