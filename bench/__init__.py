"""Speed and memory, each against a peer or a limit measured in the same run: `python -m bench.run --help`. What our
intervals cover: `python -m bench.coverage`."""
