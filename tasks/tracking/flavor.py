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

CHAT, TEXT = "llm/v1/chat", "text-generation"  # MLflow's names: messages as OpenAI's API has them, and plain text
_WEIGHTS = "*.safetensors"


def log_as_model(client: MlflowClient, model_id: str, folder: Path) -> None:
    """Uploads a Hugging Face folder (as `model/`), its tokenizer and the description that MLflow loads them by. A
    policy with a chat template is called with messages, another one with text."""
    from mlflow import transformers as flavor  # imports torch

    logging.getLogger(flavor.__name__).setLevel(logging.ERROR)  # it misses the model's card on the hub
    chats = (folder / "chat_template.jinja").is_file()
    text = ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema([ColSpec("string")]))
    example = {"messages": [{"role": "user", "content": "What is 2 + 3?"}]} if chats else "What is 2 + 3?"
    with TemporaryDirectory() as scratch:
        # Weights go from the folder to MLflow, and are in no second copy meanwhile.
        light, described = Path(scratch) / "light", Path(scratch) / "described"
        shutil.copytree(folder, light, ignore=shutil.ignore_patterns(_WEIGHTS))
        flavor.save_model(
            str(light),
            str(described),
            task=CHAT if chats else TEXT,
            signature=None if chats else text,
            input_example=example,
            mlflow_model=Model(model_id=model_id),
            pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "transformers", "accelerate")],
        )
        client.log_model_artifacts(model_id, str(described))
    client.log_model_artifacts(model_id, str(folder), "model")
