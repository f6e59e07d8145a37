#!/usr/bin/env bash
# A flow over several containers: number 0 starts Ray and runs `sgpo ARGUMENTS`. The others join Ray, and join again if
# number 0 was replaced; whoever has started them ends them.
# JOB_COMPLETION_INDEX: number of this one (an Indexed Job of Kubernetes sets it). NODES: how many there are. RAY_ADDRESS:
# host and port of number 0.
set -euo pipefail
host=${RAY_ADDRESS%:*} port=${RAY_ADDRESS##*:}

if ((JOB_COMPLETION_INDEX > 0)); then
    trap 'exit 0' TERM
    while true; do
        until env -u RAY_ADDRESS ray start --address="$RAY_ADDRESS"; do sleep 5 & wait $!; done
        while timeout 5 bash -c "true > /dev/tcp/$host/$port" 2>/dev/null; do sleep 5 & wait $!; done
        ray stop --force
    done
fi

env -u RAY_ADDRESS ray start --head --port="$port"
there="import ray; ray.init(log_to_driver=False); exit(sum(n['Alive'] for n in ray.nodes()) < $NODES)"
for ((attempt = 0; attempt < 120; attempt++)); do python -c "$there" && break; sleep 5; done
((attempt < 120)) || { echo "Ray has not started on all $NODES nodes" >&2; exit 1; }
exec sgpo "$@"
