"""publish: a finished run's policy, and its responses, on the Hugging Face hub.

RUN_DIR/policy/ ──▶ --to ORG/NAME, RUN_DIR/iterations/*/rollouts.parquet ──▶ --dataset ORG/NAME

The token comes from HF_TOKEN (or `hf auth login`) and must be allowed to write there. What is there already and has not
changed is not sent again. A file that tells of this machine, or holds a secret, is refused.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("publish")

from tasks import publishing


def publish(run: str, to: str | None, dataset: str | None, private: bool) -> None:
    """Prints the address of each page."""
    for page in publishing.publish(run, to, dataset, private):
        print(page)
