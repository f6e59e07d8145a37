"""Settings of the optimizer, of the engines, and of what a run leaves behind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sgpo_core.config.base import Fraction, Operational, Positive, Settings

Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainSettings(Settings):
    lr: float = Field(1e-4, gt=0, description="learning rate")
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), description="AdamW betas")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    grad_clip: float = Field(1.0, ge=0, description="global gradient norm limit; 0: none")
    warmup_steps: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    mini_batches: Positive = Field(2, description="optimizer steps an iteration and epoch")
    epochs: Positive = Field(1, description="passes over an iteration's rollouts")
    micro_batch_tokens: Operational[Positive] = Field(
        4096,
        description="tokens of one forward-backward pass; responses to one prompt count it once",
    )
    mismatch_alarm: Operational[float] = Field(
        0.05,
        gt=0,
        description="mean |log-probability of trainer - of sampler| (nats) above which every iteration warns",
    )
    gradient_checkpointing: Operational[bool] = Field(
        False, description="recompute activations in the backward pass to save memory"
    )


class DeepSpeedSettings(Settings):
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0, description="what is sharded over ranks: 1 optimizer, 2 + gradients, 3 + weights"
    )
    offload_optimizer: bool = Field(False, description="keep optimizer state in CPU memory")

    def stage(self, dtype: Literal["float32", "bfloat16"]) -> int:
        """The stage that DeepSpeed runs. In bfloat16 at least 1: only from there on it adds up gradients in float32."""
        return max(self.zero_stage, 1) if dtype == "bfloat16" else self.zero_stage


class ClusterSettings(Settings):
    rollout_actors: Positive = Field(2, description="vLLM engines; they share the prompts")
    rollout_threads: Positive = Field(
        1, description="CPU threads of each vLLM engine; actors x threads should be the cores"
    )
    rollout_gpus: int = Field(0, ge=0, description="GPUs of each vLLM engine (tensor parallel); 0: CPU")
    kv_cache_mib: Positive = Field(128, description="KV cache of each CPU engine, MiB")
    gpu_memory_utilization: Fraction = Field(0.9, description="share of GPU memory that each GPU engine may take")
    max_num_seqs: Positive = Field(64, description="responses that one engine generates at a time")
    trainer_ranks: Positive = Field(1, description="DeepSpeed ranks")
    trainer_threads: Positive = Field(2, description="CPU threads of each rank")
    trainer_gpus: int = Field(0, ge=0, le=1, description="GPUs of each rank; 0: CPU")
    colocated: bool = Field(
        False,
        description="engine i and rank i share GPU i and take turns: the engine has gpu_memory_utilization of it, the "
        "rank the rest",
    )
    sleep: bool = Field(
        False,
        description="where engines and ranks share GPUs, the one that has nothing to do moves to host memory: the "
        "engine then has gpu_memory_utilization of the GPU while it generates, the rank nearly all of it while it "
        "trains; not with deepspeed.zero_stage=3",
    )
    sync_by: Literal["auto", "file", "broadcast"] = Field(
        "auto",
        description="how weights go from the trainer to the engines: through a file in sync_dir, or broadcast from "
        "memory to memory (NCCL; on the CPU gloo); auto: a file on one node, broadcast on several, if engines and "
        "ranks have GPUs of their own",
    )
    sync_dir: str = Field(
        "/dev/shm",
        description="folder, best in memory, of weights that go through a file; several nodes need a shared one",
    )
    sync_tolerance: float | None = Field(
        None,
        gt=0,
        description="how far the mean log-probability of a probe's tokens may differ between trainer and engine after "
        "a weight sync, nats (their 90th percentile: four times as far); null: 1e-4 in float32, 0.15 in bfloat16",
    )
    deadline_s: float = Field(
        3600.0,
        gt=0,
        description="seconds without an answer after which an engine or a rank counts as hung, and as lost",
    )
    restarts: int = Field(
        2, ge=0, description="how often a run that has lost an engine or a rank starts them anew and goes on"
    )

    def probe_tolerance(self, dtype: Literal["float32", "bfloat16"]) -> float:
        """`sync_tolerance`, or the default of the dtype. Measured with SmolLM2-135M-Instruct on the CPU, weights equal:
        in float32 a mean of 1e-5 and a largest difference of 7e-5, in bfloat16 a mean of 0.05 and a 90th percentile of
        0.13. Other weights differ by several nats."""
        return self.sync_tolerance or {"float32": 1e-4, "bfloat16": 0.15}[dtype]

    @property
    def gpus(self) -> int:
        """GPUs of all engines and ranks together."""
        ranks = 0 if self.colocated else self.trainer_ranks * self.trainer_gpus
        return self.rollout_actors * self.rollout_gpus + ranks

    @model_validator(mode="after")
    def _pairs(self) -> ClusterSettings:
        if self.colocated and self.sync_by == "broadcast":
            raise ValueError(
                "cluster.sync_by=broadcast needs engines and ranks on different GPUs (NCCL takes a GPU once): set "
                "cluster.sync_by=file or cluster.colocated=false"
            )
        if self.sync_by == "broadcast" and (self.rollout_gpus > 0) != (self.trainer_gpus > 0):
            raise ValueError(
                "cluster.sync_by=broadcast needs engines and ranks both on GPUs or both on the CPU: set "
                "cluster.sync_by=file, or cluster.rollout_gpus and .trainer_gpus"
            )
        if self.colocated and (
            self.rollout_actors != self.trainer_ranks or (self.rollout_gpus, self.trainer_gpus) != (1, 1)
        ):
            raise ValueError(
                "cluster.colocated=true wants as many engines as ranks, with one GPU each: set cluster.rollout_actors "
                "and .trainer_ranks to the same number, .rollout_gpus=1 and .trainer_gpus=1"
            )
        if self.sleep and self.sync_by == "broadcast":
            raise ValueError(
                "cluster.sync_by=broadcast needs engines and ranks that are at work at the same time: set "
                "cluster.sync_by=file or cluster.sleep=false"
            )
        if self.sleep and not self.colocated and self.gpus:
            raise ValueError(
                "cluster.sleep=true is for engines and ranks that share GPUs: set cluster.colocated=true as well"
            )
        return self


class CheckpointSettings(Settings):
    every: Positive = Field(10, description="iterations between checkpoints; the last iteration always has one")
    keep: Positive = Field(2, description="newest checkpoints that stay, besides the best one")
    model: str = Field(
        "sgpo-{preset}",
        pattern=r"^([\w.-]|\{preset\})*$",
        description="registered model in MLflow whose candidate the best checkpoint becomes; empty or in a sweep: none",
    )


class TagSettings(Settings):
    sweep: str = Field("", pattern=r"^[\w .:+-]*$", description="MLflow tag that groups the runs of one comparison")
    arm: str = Field("", description="MLflow tag of the group of runs in a comparison; empty: the algorithm's name")
