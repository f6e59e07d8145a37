"""Responses without padding, a shared prompt once: how a micro-batch lies in memory, and how it is attended to.

    flat tokens    prompt A │ response 1 │ response 2 │ prompt B │ response 3 │ ...

Everything but attention is computed on the flat tokens. A response attends to its prompt and to itself, a prompt to
itself; positions begin anew with each prompt and go on from it with each of its responses. So the eight responses of a
group cost their prompt once, and no token is padding. (Inside of attention, texts of like lengths are padded to the
longest of them, at most to one and a half times their length.) Log-probabilities and gradients are those of responses
one by one, to rounding. [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Responses:
    """R responses of like lengths to shared prompts, padded to the longest (length L).

    tokens int64 [R, L]: places among the flat tokens; padding points to token 0, and nothing comes of it. prompt_of
    int64 [R]: the row of `Shared.prompts` that is a response's prompt. visible bool [R, 1, L, P + L]: what a response's
    token attends to, of its prompt (padded to P) and of itself."""

    tokens: Tensor
    prompt_of: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> Responses:
        return Responses(self.tokens.to(device), self.prompt_of.to(device), self.visible.to(device))


@dataclass(frozen=True, slots=True)
class Shared:
    """Prompts of like lengths that have several responses, int64 [C, P] as above, and these."""

    prompts: Tensor
    responses: tuple[Responses, ...]

    def to(self, device: torch.device) -> Shared:
        return Shared(self.prompts.to(device), tuple(rows.to(device) for rows in self.responses))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the texts of a micro-batch stand among its N flat tokens. `alone`: prompts with their only response, those
    of like lengths together, each int64 [texts, longest of them].

    All padded places, those of `alone` first, then those of `shared`, its prompts before their responses: tokens int64
    [places]: their flat tokens; place int64 [N]: where among them a flat token is. longest: tokens of the longest
    prompt with its response."""

    alone: tuple[Tensor, ...]
    shared: tuple[Shared, ...]
    tokens: Tensor
    place: Tensor
    longest: int

    @property
    def blocks(self) -> list[Tensor]:
        """Flat places, in the order of the padded ones."""
        shared = ([group.prompts, *(rows.tokens for rows in group.responses)] for group in self.shared)
        return [*self.alone, *chain.from_iterable(shared)]

    def to(self, device: torch.device) -> Layout:
        alone, shared = tuple(x.to(device) for x in self.alone), tuple(x.to(device) for x in self.shared)
        return Layout(alone, shared, self.tokens.to(device), self.place.to(device), self.longest)


@dataclass(frozen=True, slots=True)
class Packed:
    """input_ids, position_ids int64 [N]; first int64 [samples]: flat place of each response's first token; before int64
    [samples]: of the token that predicts it, its prompt's last."""

    input_ids: Ids
    position_ids: Ids
    first: Ids
    before: Ids
    layout: Layout


def pack(prompts: Sequence[npt.ArrayLike], responses: Sequence[npt.ArrayLike]) -> Packed:
    """Response i, of at least one token, answers prompt i, of at least one token; equal prompts become one."""
    answers = [np.asarray(response, np.int64) for response in responses]
    of_prompt: dict[bytes, list[int]] = {}
    for i, prompt in enumerate(prompts):
        of_prompt.setdefault(np.asarray(prompt, np.int64).tobytes(), []).append(i)
    first, before = np.zeros(len(answers), np.int64), np.zeros(len(answers), np.int64)
    pieces: list[Ids] = []
    positions: list[Ids] = []
    shared: list[tuple[int, int]] = []  # (place, tokens) of prompts with several responses
    alone: list[tuple[int, int]] = []  # of prompts together with their only response
    tails: list[tuple[int, int, int]] = []  # of responses to shared prompts, and the place of their prompt
    total = longest = 0
    for key, members in of_prompt.items():
        prompt_ids = np.frombuffer(key, np.int64)
        begin, total = total, total + len(prompt_ids)
        pieces.append(prompt_ids)
        positions.append(np.arange(len(prompt_ids)))
        for i in members:
            first[i], before[i] = total, begin + len(prompt_ids) - 1
            pieces.append(answers[i])
            positions.append(len(prompt_ids) + np.arange(len(answers[i])))
            longest = max(longest, len(prompt_ids) + len(answers[i]))
            if len(members) > 1:
                tails.append((total, len(answers[i]), begin))
            total += len(answers[i])
        if len(members) > 1:
            shared.append((begin, len(prompt_ids)))
        else:
            alone.append((begin, total - begin))
    layout = _layout(shared, alone, tails, total, longest)
    return Packed(np.concatenate(pieces), np.concatenate(positions), first, before, layout)


def _layout(
    shared: Sequence[tuple[int, int]],
    alone: Sequence[tuple[int, int]],
    tails: Sequence[tuple[int, int, int]],
    total: int,
    longest: int,
) -> Layout:
    tokens: list[Ids] = []
    place, padded_places = np.zeros(total, np.int64), 0

    def rows(stretches: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Stretches (place, tokens, ...) as rows of flat places, and where there is one; noted as the next padded
        ones."""
        nonlocal padded_places
        offsets = np.arange(stretches[:, 1].max())
        there = offsets < stretches[:, 1:2]
        found = np.where(there, stretches[:, :1] + offsets, 0)
        place[found[there]] = padded_places + np.flatnonzero(there)
        padded_places += found.size
        tokens.append(found.ravel())
        return found, there

    def responses(stretches: Ids, starts: Ids, prompt_there: npt.NDArray[np.bool_]) -> Responses:
        """To the prompts that begin at `starts` (ascending)."""
        found, _ = rows(stretches)
        (count, width), prompt_of = found.shape, np.searchsorted(starts, stretches[:, 2])
        of_prompt = np.repeat(prompt_there[prompt_of, None, :], width, axis=1)
        of_itself = np.broadcast_to(np.tril(np.ones((width, width), bool)), (count, width, width))
        visible = np.concatenate([of_prompt, of_itself], axis=2)[:, None]
        return Responses(*(torch.from_numpy(part) for part in (found, prompt_of, visible)))

    whole = tuple(torch.from_numpy(rows(block)[0]) for block in _of_like_lengths(alone))
    groups = []
    for block in _of_like_lengths(shared):
        (prompts, there), starts = rows(block), block[:, 0]
        answers = _of_like_lengths([tail for tail in tails if tail[2] in starts])
        blocks = tuple(responses(stretches, starts, there) for stretches in answers)
        groups.append(Shared(torch.from_numpy(prompts), blocks))
    flat = torch.from_numpy(np.concatenate(tokens))
    return Layout(whole, tuple(groups), flat, torch.from_numpy(place), longest)


def _of_like_lengths(stretches: Sequence[tuple[int, ...]]) -> list[Ids]:
    """Stretches (place, tokens, ...) in blocks, by place in each; the longest of a block is at most one and a half
    times as long as its shortest."""
    blocks: list[list[tuple[int, ...]]] = []
    for stretch in sorted(stretches, key=lambda s: -s[1]):
        if not blocks or 3 * stretch[1] < 2 * blocks[-1][0][1]:
            blocks.append([])
        blocks[-1].append(stretch)
    return [np.array(sorted(block), np.int64) for block in blocks]


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of flat tokens, in the form that transformers' `AttentionInterface` calls: query [1, heads, N, size],
    key and value [1, key-value heads, N, size]; returns [1, N, heads, size].

    Raises ValueError for what it does not compute: a sliding window that something falls out of, soft-capped scores.
    """
    if softcap is not None or (sliding_window is not None and layout.longest > sliding_window):
        raise ValueError(
            "attention with soft-capped scores, or with a sliding window that is shorter than the responses "
            f"(window {sliding_window}, longest {layout.longest} tokens), can't be trained here: choose another model, "
            "or a smaller model.max_length"
        )
    # On the CPU the backward pass of attention is three times slower in bfloat16 than in float32.
    dtype = torch.float32 if query.device.type == "cpu" and query.dtype == torch.bfloat16 else query.dtype
    heads, kv_heads = query.shape[1], key.shape[1]
    flat = torch.cat([x[0].transpose(0, 1) for x in (query, key, value)], dim=1).to(dtype)
    padded: Tensor = _Pad.apply(flat, layout)  # type: ignore[no-untyped-call]
    parts = iter(padded.split([block.numel() for block in layout.blocks]))

    def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """Of [rows, columns, heads, size]: [rows * columns, heads, size]"""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(heads // kv_heads, dim=1) if heads > kv_heads else x for x in (k, v))
        found = nn.functional.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None, scale=scaling)
        return found.transpose(1, 2).flatten(0, 1)

    def of_next(block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [rows, columns, heads, size]"""
        q, k, v = next(parts).view(*block.shape, *flat.shape[1:]).split([heads, kv_heads, kv_heads], dim=2)
        return q, k, v

    found = [attend(*of_next(block), None) for block in layout.alone]
    for group in layout.shared:
        prompt_q, prompt_k, prompt_v = of_next(group.prompts)
        found.append(attend(prompt_q, prompt_k, prompt_v, None))
        for rows in group.responses:
            q, k, v = of_next(rows.tokens)
            k = torch.cat([prompt_k.index_select(0, rows.prompt_of), k], dim=1)
            v = torch.cat([prompt_v.index_select(0, rows.prompt_of), v], dim=1)
            found.append(attend(q, k, v, rows.visible))
    flat_found: Tensor = _Unpad.apply(torch.cat(found), layout)  # type: ignore[no-untyped-call]
    return flat_found.unsqueeze(0).to(query.dtype), None


class _Pad(torch.autograd.Function):
    """[N, ...] to [places, ...]. Every flat token has just one padded place, so that forward and backward are both a
    plain gather; autograd's own backward would add up, one token after the other."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return flat.index_select(0, layout.tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.layout.place), None


class _Unpad(torch.autograd.Function):
    """Back; what is padding has no gradient."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return padded.index_select(0, layout.place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        padded = gradient.new_zeros(len(ctx.layout.tokens), *gradient.shape[1:])
        return padded.index_copy_(0, ctx.layout.place, gradient), None
