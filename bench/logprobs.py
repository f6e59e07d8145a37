"""logprobs_memory, logprobs_time: log-probabilities of sampled tokens and their gradients from hidden states
(`sgpo_core.rl.linear_logprobs`) against what one writes: logits, log-softmax in float32, gather, `backward`.

Memory is the peak above hidden states, weights and their gradients, each side in a process of its own. Ours also
measures the entropy, as the trainer has it; the peer does not. Ours multiplies four times (it makes the logits again in
backward) where the peer does three times: by arithmetic alone its time ratio would be 0.75.

    python -m bench.logprobs

runs it alone, with nothing but torch: on the GPU where there is one, else on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.figures import Figure, side_by_side
from sgpo_core.rl.linear_logprobs import linear_token_logprobs

REPEATS = 5
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Shape:
    tokens: int
    vocabulary: int
    width: int
    dtype: torch.dtype
    time_goal: float  # naive seconds / ours

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.vocabulary} pieces, width {self.width}, {self.dtype}".replace("torch.", "")


# Qwen2.5-7B's output layer and a micro-batch of its preset.
GPU = Shape(4096, 152064, 3584, torch.bfloat16, time_goal=1.0)
# The same vocabulary, Qwen2.5-0.5B's width and a quarter of the tokens: seconds and 3 GiB instead of minutes and 15.
# The width is in neither side's memory above weights and gradients; more tokens would only widen the distance.
CPU = Shape(1024, 152064, 896, torch.float32, time_goal=0.74)


class Work:
    """The tensors of one shape, made up, and both ways to go through them."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.shape = GPU if torch.cuda.is_available() else CPU
        torch.manual_seed(0)
        self.hidden = self._random(self.shape.tokens, 1.0)
        self.weight = self._random(self.shape.vocabulary, self.shape.width**-0.5)  # logits about as wide as a model's
        self.targets = torch.randint(self.shape.vocabulary, (self.shape.tokens,), device=self.device)
        self.sides: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ours": self._ours, "naive": self._naive}

    def _random(self, rows: int, scale: float) -> Tensor:
        tensor = torch.empty(rows, self.shape.width, dtype=self.shape.dtype, device=self.device)
        return tensor.normal_().mul_(scale).requires_grad_()

    def _ours(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return linear_token_logprobs(hidden, self.weight, targets)[0]

    def _naive(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = hidden @ self.weight.T
        return torch.log_softmax(logits.float(), dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def step(self, side: str, tokens: int | None = None) -> None:
        """Forward and backward over the first `tokens`; leaves fresh gradients."""
        self.hidden.grad = self.weight.grad = None
        self.sides[side](self.hidden[:tokens], self.targets[:tokens]).sum().backward()

    def seconds(self, side: str) -> float:
        self._wait()
        began = time.perf_counter()
        self.step(side)
        self._wait()
        return time.perf_counter() - began

    def peak_mib(self, side: str) -> float:
        """Of a fresh process: the most memory in use in one step, above tensors and gradients."""
        self.step(side, tokens=8)  # libraries and their threads are there, and so are the gradients
        base = self._memory("VmRSS")
        self.step(side)
        return (self._memory("VmHWM") - base) / MIB

    def _memory(self, field: str) -> int:
        """Bytes in use now (VmRSS) or at most since the start (VmHWM)."""
        if self.device == "cuda":
            return torch.cuda.memory_allocated() if field == "VmRSS" else torch.cuda.max_memory_allocated()
        # Not getrusage: its peak is also that of the process that started this one.
        [line] = [text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(field)]
        return int(line.split()[1]) * 1024

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def measure() -> Iterator[Figure]:
    """MiB and seconds of both, forward and backward once."""
    own_mib, naive_mib = peak_mib("ours"), peak_mib("naive")
    work = Work()
    where = f"{work.shape} on the {'GPU' if work.device == 'cuda' else 'CPU'}"
    yield Figure(
        figure="logprobs_memory",
        value=own_mib,
        unit="MiB",
        goal=(">=", 6.0),
        peer=naive_mib,
        ratio=naive_mib / own_mib,
        how=f"peer: logits, log_softmax, gather, backward; {where}; peak above weights and gradients",
    )
    own_s, naive_s = side_by_side(lambda: work.seconds("ours"), lambda: work.seconds("naive"), REPEATS)
    yield Figure(
        figure="logprobs_time",
        value=own_s,
        unit="s",
        goal=(">=", work.shape.time_goal),
        peer=naive_s,
        ratio=naive_s / own_s,
        how=f"as logprobs_memory; medians of {REPEATS} in turn",
    )


def peak_mib(side: str) -> float:
    """MiB that a process of its own measures."""
    command = [sys.executable, "-m", "bench.logprobs", side]
    root = Path(__file__).resolve().parents[1]
    return float(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    if len(sys.argv) > 1:
        print(Work().peak_mib(sys.argv[1]))
        return
    for figure in measure():
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
