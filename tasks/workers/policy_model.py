"""The policy as the trainer computes it: a transformers model whose attention is over packed samples, and whose output
layer gives log-probabilities of tokens instead of logits."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgpo_core.rl.linear_logprobs import as_logprob_head
from sgpo_core.rl.packing import packed_attention
from sgpo_core.rl.training_samples import MicroBatch

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ATTENTION = "packed"  # its name in transformers


def load_policy(folder: str, dtype: Literal["float32", "bfloat16"], gradient_checkpointing: bool) -> Any:
    """The transformers model in a folder; in shards, where DeepSpeed was told so before."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(
        folder, dtype=_DTYPES[dtype], trust_remote_code=False, use_safetensors=True
    )
    if gradient_checkpointing:
        # There is no dropout whose random numbers the second forward pass would have to repeat.
        lm.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}
        )
    return lm


class PolicyModel(nn.Module):
    """The causal LM, computing only what the loss needs: log-probabilities at response tokens of packed samples."""

    def __init__(self, lm: Any) -> None:
        from transformers import AttentionInterface

        super().__init__()
        self.lm: Any = lm  # a transformers model for causal language modeling
        AttentionInterface.register(_ATTENTION, packed_attention)
        lm.set_attn_implementation(_ATTENTION)
        as_logprob_head(lm.get_output_embeddings())

    def forward(self, batch: MicroBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """(log-probabilities, entropies) of the batch's tokens, float32 [tokens], nats."""
        hidden = self.lm.get_decoder()(
            input_ids=batch.input_ids, position_ids=batch.position_ids, layout=batch.layout, use_cache=False
        ).last_hidden_state
        logprobs, entropies = self.lm.get_output_embeddings()(hidden[0, batch.before], batch.targets, temperature)
        return logprobs, entropies
