"""A policy's folder as an MLflow model, which `mlflow models serve` and `mlflow.pyfunc.load_model` take."""

from __future__ import annotations

import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

from sgpo_core.storage.atomic import write_text

log = logging.getLogger("sgpo.tracking")
CHAT, TEXT = "llm/v1/chat", "text-generation"  # MLflow's names: messages as OpenAI's API has them, and plain text
_WEIGHTS = "*.safetensors"


def log_as_model(client: MlflowClient, model_id: str, folder: Path) -> None:
    """Uploads a Hugging Face folder (as `model/`), its tokenizer and the description that MLflow loads them by. A
    policy with a chat template is called with messages, another one with text. Where MLflow can't describe a policy,
    the folder alone is uploaded: a finished run does not fail for it."""
    with TemporaryDirectory() as scratch:
        described = Path(scratch) / "described"
        try:
            _describe(folder, described, model_id)
        except Exception as error:  # of transformers, which reads the tokenizer of whatever model this is
            log.warning("%s: MLflow can keep it, but can't load it as a model: %s", folder, error)
        else:
            client.log_model_artifacts(model_id, str(described))
    client.log_model_artifacts(model_id, str(folder), "model")


def _describe(folder: Path, target: Path, model_id: str) -> None:
    """Everything but the weights, which are in no second copy meanwhile."""
    from mlflow import transformers as flavor  # imports torch

    logging.getLogger(flavor.__name__).setLevel(logging.ERROR)  # it misses the model's card on the hub
    chats = (folder / "chat_template.jinja").is_file()
    text = ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema([ColSpec("string")]))
    example = {"messages": [{"role": "user", "content": "What is 2 + 3?"}]} if chats else "What is 2 + 3?"
    light = target.with_name("policy")
    shutil.copytree(folder, light, ignore=shutil.ignore_patterns(_WEIGHTS))
    flavor.save_model(
        str(light),
        str(target),
        task=CHAT if chats else TEXT,
        signature=None if chats else text,
        input_example=example,
        mlflow_model=Model(model_id=model_id),
        # Without the local part of a version (2.13.0+cpu), which no package index has.
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers", "accelerate")],
    )
    # MLflow takes the path for the name of a model of the hub.
    description = target / "MLmodel"
    write_text(description, description.read_text(encoding="utf-8").replace(str(light), light.name))
    (target / "LICENSE.txt").unlink(missing_ok=True)
