"""simulate: how fast is a preset on N GPUs, who waits for whom, and which split of the GPUs is best? Nothing is loaded.

lengths, engines, judge, update, sync ──▶ iterations, event by event ──▶ seconds, idle shares, GPU-hours of each split

By arithmetic, as preflight; or with --run, fitted to what a run has measured. docs/gpus.md says what that tells.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("simulate")

from collections.abc import Sequence
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import load_run
from tasks.simulation import draw_timelines, estimates_page, run_page
from tasks.sizing import mean_length, named_machine, this_machine


def simulated(
    preset: str,
    overrides: Sequence[str],
    gpu: str | None,
    gpus: int,
    nodes: Sequence[int],
    response_tokens: float | None,
    run: Path | None,
    out: Path | None,
) -> None:
    """Prints the page, then the path of the picture where one is wanted."""
    config = load_run(preset, overrides)
    if run:
        if gpu or out or response_tokens:
            raise ConfigError("--run goes without --gpu, --response-tokens and --out: the run says what is there")
        return print(run_page(config, run))
    if 0 in nodes:
        raise ConfigError("--nodes 0: numbers of at least 1 are wanted")
    machine = named_machine(gpu, gpus) if gpu else this_machine(config)
    if machine is None or not machine.gpu.tflops:
        raise ConfigError("no GPU here whose data sheet is known: name one, e.g. --gpu H100-80 --gpus 8")
    text, best = estimates_page(config, machine.gpu, machine.gpus, nodes, response_tokens or mean_length(config))
    print(text)
    if out:
        print(f"\npicture   {draw_timelines(out.absolute() / 'simulate.png', best)}")
