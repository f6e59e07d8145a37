#!/usr/bin/env bash
# A flow over several containers: number 0 starts Ray and runs `sgpo ARGUMENTS`, the others join Ray and stay until it ends.
# JOB_COMPLETION_INDEX: number of this one (an Indexed Job of Kubernetes sets it). NODES: how many there are. RAY_ADDRESS:
# host and port of number 0.
set -euo pipefail

if ((JOB_COMPLETION_INDEX > 0)); then
    until env -u RAY_ADDRESS ray start --address="$RAY_ADDRESS" --block; do sleep 5; done
    exit
fi

env -u RAY_ADDRESS ray start --head --port="${RAY_ADDRESS##*:}"
there="import ray; ray.init(log_to_driver=False); exit(sum(n['Alive'] for n in ray.nodes()) < $NODES)"
for ((attempt = 0; attempt < 120; attempt++)); do python -c "$there" && break; sleep 5; done
((attempt < 120)) || { echo "Ray has not started on all $NODES nodes" >&2; exit 1; }
exec sgpo "$@"
