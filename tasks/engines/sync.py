"""Weights from the trainer to the rollout engines, and the proof that they arrived."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from tasks.engines.cluster import Engines
from tasks.workers.weight_sync import Fingerprint


def sync_engines(engines: Engines, version: int, probe: Sequence[int], tolerance: float) -> float:
    """Export, load, compare fingerprints; returns the probe's largest difference (nats). Raises RuntimeError when an
    engine does not hold the trainer's weights: to go on would be to train on samples of another policy."""
    path = engines.sync_dir / f"policy-{version}.safetensors"
    checksums = engines.on_all_ranks("export", str(path))
    loading = [engine.load_weights.remote(str(path), version, probe) for engine in engines.rollouts]
    expected = Fingerprint(version, checksums[0], tuple(engines.on_all_ranks("probe", probe)[0]))
    worst = 0.0
    for number, found in enumerate(ray.get(loading)):
        difference = expected.difference(found)
        worst = max(worst, difference)
        if (found.version, found.checksum) != (expected.version, expected.checksum) or not difference <= tolerance:
            raise RuntimeError(
                f"rollout engine {number} does not hold the trainer's weights: version {found.version} for {version}, "
                f"checksum {'equal' if found.checksum == expected.checksum else 'different'}, probe differs by "
                f"{difference:.2e} nats (cluster.sync_tolerance={tolerance})"
            )
    path.unlink()
    return worst
