"""preflight: does a preset fit a machine, and what bounds an iteration? By arithmetic; nothing is loaded.

settings, shape of the model, figures of the GPU ──▶ memory of each device, host, disk; seconds; verdict

Exit status 0: it fits; 3: it does not. The same check runs in front of every run on GPUs.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("preflight")

import sys
from collections.abc import Sequence

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from tasks.sizing import mean_length, named_machine, page, this_machine

LOADERS = {"online": load_run, "offline": load_offline}


def preflight(
    preset: str, overrides: Sequence[str], flow: str, gpu: str | None, gpus: int, response_tokens: float | None
) -> None:
    """Prints the page and ends with its exit status. `flow`: whose preset it is."""
    config = LOADERS[flow](preset, overrides)
    machine = named_machine(gpu, gpus) if gpu else this_machine(config)
    if machine is None:
        raise ConfigError("this machine has no GPU: name one, e.g. --gpu H100-80 --gpus 8")
    text, fits = page(config, machine, response_tokens or mean_length(config))
    print(text)
    sys.exit(0 if fits else 3)
