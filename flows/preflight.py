"""preflight: does a preset fit a machine, and what bounds an iteration? By arithmetic; nothing is loaded.

settings, shape of the model, figures of the GPU ──▶ memory of each device, host, disk; seconds; verdict

Exit status 0: it fits; 3: it does not. The same check runs in front of every run on GPUs.
"""

from __future__ import annotations

import argparse
import sys

from sgpo_core.config.base import ConfigError
from sgpo_core.config.loading import presets
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from tasks.sizing import named_machine, page, this_machine

LOADERS = {"online": load_run, "offline": load_offline}


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    if options.gpus < 1:
        parser.error(f"--gpus is at least 1, got {options.gpus}")
    if options.response_tokens is not None and not options.response_tokens > 0:
        parser.error(f"--response-tokens is above 0, got {options.response_tokens:g}")
    try:
        config = LOADERS[options.flow](options.preset, options.overrides)
        machine = named_machine(options.gpu, options.gpus) if options.gpu else this_machine(config)
        if machine is None:
            raise ConfigError("this machine has no GPU: name one, e.g. --gpu H100-80 --gpus 8")
        text, fits = page(config, machine, options.response_tokens or config.sampling.max_tokens / 4)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    sys.exit(0 if fits else 3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.preflight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", help=f"one of: {', '.join(presets('online'))}")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, e.g. train.micro_batch_tokens=8192"
    )
    parser.add_argument("--flow", choices=sorted(LOADERS), default="online", help="whose preset it is [online]")
    parser.add_argument("--gpu", metavar="NAME", help="a GPU by name, e.g. A100-80, H100-80, L4-24 [this machine's]")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="with --gpu: how many [8]")
    parser.add_argument(
        "--response-tokens",
        type=float,
        metavar="N",
        help="of a response, on average [a quarter of sampling.max_tokens]",
    )
    return parser


if __name__ == "__main__":
    main()
