"""Can this folder be a policy? What engines and trainers would find out late, vaguely or never, read from its small
files and from the headers of its weights, in well under a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.data import load_config, load_tokenizer, stop_ids

_INDEX, _GENERATION = "model.safetensors.index.json", "generation_config.json"
_EMBEDDING, _HEAD, _HEAD_BIAS = "embed_tokens.weight", "lm_head.weight", "lm_head.bias"
_AGAIN = "correct it, or copy or download it anew"

# The trainer has an attention of its own, and reads log-probabilities off hidden states: what it leaves out of a model
# that has it, and the values with which that changes nothing.
_LEFT_OUT: Mapping[str, tuple[float | None, ...]] = {
    "use_bidirectional_attention": (None, False),
    "attn_logit_softcapping": (None, 0),
    "final_logit_softcapping": (None, 0),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "lm_head_multiplier": (None, 1),
}
_DROPOUTS = ("hidden_dropout", "resid_pdrop", "embd_pdrop")  # not that of attention, which is left out
# Kinds of rope whose max_position_embeddings is the length that they reach; others are multiplied by their factor.
_REACHED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
# Model types that are causal language models. For others transformers is asked, whose list takes seconds to import.
_CAUSAL = ("gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")
_CPU_HEADS = (80, 112)  # that vLLM takes on the CPU besides multiples of 32


def check_policy(
    named: str,
    folder: str | Path,
    model: ModelSettings,
    cluster: ClusterSettings,
    trained: bool = True,
    length: str = "model.max_length",
) -> None:
    """Raises ConfigError that names everything for which the folder can't be the policy, each with its fix. `named` is
    what the user has set (setting=value), `length` the setting that `model.max_length` comes from. Not `trained`: the
    policy is only to generate."""
    folder = Path(folder)
    problems = list(_unreadable(folder))
    try:
        problems += [] if problems else _unfit(folder, model, cluster, trained, length)
    except Exception as error:  # of any kind: a value has not the type that its name stands for
        what = f"{type(error).__name__}: {_first_line(error)}"
        problems.append(
            f"a value in config.json, {_GENERATION} or {_INDEX} is none that can be there ({what}): {_AGAIN}"
        )
    if problems:
        raise ConfigError(f"{named} can't be the policy: {'; '.join(problems)}")


def _unfit(folder: Path, model: ModelSettings, cluster: ClusterSettings, trained: bool, length: str) -> Iterator[str]:
    config = load_config(folder)
    yield from _incomplete(folder)
    yield from _out_of_bounds(config.get_text_config(), context_length(folder), model, cluster, length)
    yield from _vocabulary(folder, config.get_text_config())
    if getattr(config.get_text_config(), "tie_word_embeddings", False):
        yield from _head_of_its_own(folder)
    if model.chat_template:
        yield from _template(folder, model.thinks)
    if trained:
        yield from _not_trainable(folder, config, model.max_length, length)


def context_length(folder: str | Path) -> int | None:
    """The longest text that the model in a folder was made for, tokens, as vLLM reads it from config.json; None where
    that does not say."""
    config = load_config(folder).get_text_config()
    longest: int | None = getattr(config, "max_position_embeddings", None)
    if longest is None or "gemma3" in config.model_type:
        return longest
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope] if "rope_type" in rope else [kind for kind in rope.values() if isinstance(kind, dict)]
    factors = [kind.get("factor") or 1.0 for kind in kinds if kind.get("rope_type") not in _REACHED]
    return int(longest * max(factors, default=1.0))


def _unreadable(folder: Path) -> Iterator[str]:
    """What is missing or broken."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in folder.glob(kind))
        found = f" (found {pickles[0]}, a pickle: it could run code and is not loaded)" if pickles else ""
        yield f"it has no weights in safetensors format{found}: save_pretrained(...) of transformers writes them so"
    if not (folder / "tokenizer.json").is_file():
        yield (
            "it has no tokenizer.json: AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes "
            "one, where the tokenizer is there in another form"
        )
    readers: dict[Path, Callable[[Path], object]] = {
        **dict.fromkeys(weights, _shapes),
        folder / "config.json": _config,
        folder / "tokenizer.json": lambda file: load_tokenizer(str(file.parent)),
        folder / _GENERATION: _json,
        folder / _INDEX: _json,
    }
    for file, read in readers.items():
        try:
            if file.is_file():
                read(file)
        except Exception as error:  # of many kinds, among them plain Exceptions
            yield f"{file.name} can't be read ({_first_line(error)}): {_AGAIN}"


def _config(file: Path) -> None:
    try:
        load_config(file.parent)
    except ValueError as error:
        own_code = "auto_map" in _json(file)
        raise ValueError("it brings code of its own (auto_map), which is not run") if own_code else error from None


def _shapes(file: Path) -> dict[str, list[int]]:
    """Shape of every tensor, from the header, which has to fit to the file's length, too."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118


def _all_shapes(folder: Path) -> dict[str, list[int]]:
    return {name: shape for file in folder.glob("*.safetensors") for name, shape in _shapes(file).items()}


def _incomplete(folder: Path) -> Iterator[str]:
    """A part of the weights that was not copied."""
    parts = _json(folder / _INDEX)["weight_map"].values() if (folder / _INDEX).is_file() else ()
    if missing := sorted(part for part in set(parts) if not (folder / part).is_file()):
        yield f"{missing[0]} is not there, which {_INDEX} names: copy or download the folder anew"


def _out_of_bounds(
    config: Any, longest: int | None, model: ModelSettings, cluster: ClusterSettings, length: str
) -> Iterator[str]:
    """What vLLM would refuse."""
    if longest is not None and model.max_length > longest:
        yield (
            f"{length}={model.max_length} is over the {longest} tokens that it was made for "
            f"(max_position_embeddings in config.json): lower {length}"
        )
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if not cluster.rollout_gpus and size % 32 and size not in _CPU_HEADS:
        yield (
            f"its attention heads have size {size}, and vLLM on the CPU takes multiples of 32: use GPUs "
            "(cluster.rollout_gpus), or another model"
        )


def _vocabulary(folder: Path, config: Any) -> Iterator[str]:
    """More tokens than rows of the embedding. Fewer are fine: the other rows are padding, and decoding skips them."""
    rows, tokenizer = config.vocab_size, load_tokenizer(str(folder))
    for name, shape in _all_shapes(folder).items():
        if name.endswith(_EMBEDDING) and shape[0] != rows:
            yield f"its embedding has {shape[0]} rows, and config.json says vocab_size={rows}: correct that"
            rows = shape[0]
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    last = max(len(tokenizer) - 1, *added, 0)
    if last >= rows:
        yield (
            f"its tokenizer goes up to token {last}{f' ({added[last]})' if last in added else ''}, and its embedding "
            f"has {rows} rows (vocab_size in config.json): take the tokens without a row out of tokenizer.json, or "
            "give them rows by resize_token_embeddings(...) of transformers"
        )
    if tokenizer.eos_token_id is None:
        yield "its tokenizer has no token that ends a text: name it as eos_token in tokenizer_config.json"
    elif beyond := [number for number in stop_ids(str(folder)) if number >= rows]:
        yield f"{_GENERATION} names token {beyond[0]} as eos_token_id, and its embedding has {rows} rows: correct that"


def _head_of_its_own(folder: Path) -> Iterator[str]:
    """Of a tied model: transformers would take the head, and vLLM the embedding."""
    head = _tensor(folder, _HEAD)
    if head is None:
        return  # as in most folders: then the embedding, which may be large, is not read
    embedding = _tensor(folder, _EMBEDDING)
    if embedding is not None and not head.equal(embedding):
        yield (
            "config.json says that its output layer is its embedding (tie_word_embeddings=true), and its weights hold "
            f"another one ({_HEAD}): set tie_word_embeddings=false, or take {_HEAD} out of the weights, whichever it is"
        )


def _tensor(folder: Path, name: str) -> Any:
    """The tensor whose name ends so; None where there is none."""
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for found in opened.keys():  # noqa: SIM118
                if found.endswith(name):
                    return opened.get_tensor(found)
    return None


def _template(folder: Path, thinks: bool | None) -> Iterator[str]:
    tokenizer = load_tokenizer(str(folder))
    if not tokenizer.chat_template:
        yield (
            "its tokenizer has no chat template, and model.chat_template=true: set model.chat_template=false, or put "
            "the template into its folder (chat_template.jinja)"
        )
        return
    if thinks is not None and "thinking" not in str(tokenizer.chat_template):
        yield f"its chat template has no switch for thinking, for model.thinks={str(thinks).lower()}: leave that out"
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)
    except Exception as error:  # whatever a template raises
        yield (
            f"its chat template refuses a single message of a user ({_first_line(error)}): correct it "
            "(chat_template.jinja), or set model.chat_template=false"
        )


def _is_causal(model_type: str) -> bool:
    if model_type in _CAUSAL:
        return True
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _not_trainable(folder: Path, config: Any, max_length: int, length: str) -> Iterator[str]:
    """What the trainer would compute otherwise than the engines, or not at all."""
    text = config.get_text_config()
    if not _is_causal(config.model_type):
        yield f"it is no causal language model of transformers (model_type={config.model_type}): choose one"
    elif text is not config:
        yield f"it is more than a language model (model_type={config.model_type}): choose one of text alone"
    if getattr(config, "quantization_config", None):
        yield "its weights are quantized (quantization_config in config.json): choose the model that they came from"
    for name, neutral in _LEFT_OUT.items():
        if (value := getattr(text, name, None)) not in neutral:
            yield f"it has {name}={value} (config.json), which the trainer does not compute: choose another model"
    window, layers = getattr(text, "sliding_window", None), getattr(text, "layer_types", None) or ["sliding_attention"]
    if window is not None and "sliding_attention" in layers and max_length > window:
        yield (
            f"its attention has a window of {window} tokens (sliding_window in config.json), {length}={max_length} is "
            f"over it, and the trainer has no windows: lower {length}, or choose another model"
        )
    for name in _DROPOUTS:
        if value := getattr(text, name, 0):
            yield f"it has {name}={value}, by which training would add noise: set it to 0 in config.json"
    if any(name.endswith(_HEAD_BIAS) for name in _all_shapes(folder)):
        yield "its output layer has a bias, which the trainer does not compute: choose another model"


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
