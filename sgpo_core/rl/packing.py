"""Responses without padding, a shared prompt once: how a micro-batch lies in memory, and how it is attended to.

    flat tokens    prompt A │ response 1 │ response 2 │ prompt B │ response 3 │ ...

Everything but attention is computed on the flat tokens. A response attends to its prompt and to itself, a prompt to
itself; positions begin anew with each prompt and go on from it with each of its responses. So the eight responses of a
group cost their prompt once, and no token is padding. (Inside of attention, queries are padded to the longest of the
micro-batch.) Log-probabilities and gradients are those of responses one by one, to rounding. [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the texts of a micro-batch stand among its N flat tokens. C texts attend to themselves alone: prompts of
    several responses, and prompts with their only response. R responses attend to one of these prompts, too. P and L:
    the longest text and response. Padding points to token 0, and nothing comes of it.

    text_tokens int64 [C, P] and response_tokens int64 [R, L]: places among the flat tokens; prompt_of int64 [R]: the
    text that is a response's prompt; visible bool [R, 1, L, P + L]: what a response's token attends to, of its prompt
    and of itself. Of the C * P + R * L padded places: tokens int64: their flat tokens; place int64 [N]: where
    among them a flat token is. longest: tokens of the longest prompt with its response."""

    text_tokens: Tensor
    response_tokens: Tensor
    prompt_of: Tensor
    visible: Tensor
    tokens: Tensor
    place: Tensor
    longest: int

    def to(self, device: torch.device) -> Layout:
        tensors = ("text_tokens", "response_tokens", "prompt_of", "visible", "tokens", "place")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


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
    texts: list[tuple[int, int]] = []  # (place, tokens)
    tails: list[tuple[int, int, int]] = []  # (text that is its prompt, place, tokens)
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
                tails.append((len(texts), total, len(answers[i])))
            total += len(answers[i])
        texts.append((begin, len(prompt_ids) if len(members) > 1 else total - begin))
    layout = _layout(np.array(texts), np.array(tails, np.int64).reshape(-1, 3), total, longest)
    return Packed(np.concatenate(pieces), np.concatenate(positions), first, before, layout)


def _layout(texts: Ids, tails: Ids, total: int, longest: int) -> Layout:
    prompt_of, place, length = tails.T
    text_tokens, text_there = _padded(texts[:, 0], texts[:, 1])
    response_tokens, response_there = _padded(place, length)
    widest = response_tokens.shape[1]
    visible = np.concatenate(
        [
            np.repeat(text_there[prompt_of][:, None, :], widest, axis=1),
            np.broadcast_to(np.tril(np.ones((widest, widest), bool)), (len(tails), widest, widest)),
        ],
        axis=2,
    )
    found = np.zeros(total, np.int64)
    found[text_tokens[text_there]] = np.flatnonzero(text_there)
    found[response_tokens[response_there]] = text_tokens.size + np.flatnonzero(response_there)
    return Layout(
        text_tokens=torch.from_numpy(text_tokens),
        response_tokens=torch.from_numpy(response_tokens),
        prompt_of=torch.from_numpy(prompt_of.copy()),
        visible=torch.from_numpy(visible[:, None]),
        tokens=torch.from_numpy(np.concatenate([text_tokens.ravel(), response_tokens.ravel()])),
        place=torch.from_numpy(found),
        longest=longest,
    )


def _padded(start: Ids, length: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Flat places of stretches of tokens as rows [stretches, longest], and where there is one."""
    offsets = np.arange(length.max(initial=0))
    there = offsets < length[:, None]
    return np.where(there, start[:, None] + offsets, 0), there


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
    heads, shared = query.shape[1], key.shape[1]
    flat = torch.cat([x[0].transpose(0, 1) for x in (query, key, value)], dim=1).to(dtype)
    padded: Tensor = _Pad.apply(flat, layout)  # type: ignore[no-untyped-call]
    text_count = layout.text_tokens.numel()
    texts = padded[:text_count].view(*layout.text_tokens.shape, *flat.shape[1:])
    responses = padded[text_count:].view(*layout.response_tokens.shape, *flat.shape[1:])

    def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """Of [rows, columns, heads, size]: [rows * columns, heads, size]"""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(heads // shared, dim=1) if heads > shared else x for x in (k, v))
        found = nn.functional.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None, scale=scaling)
        return found.transpose(1, 2).flatten(0, 1)

    text_q, text_k, text_v = texts.split([heads, shared, shared], dim=2)
    found = attend(text_q, text_k, text_v, None)
    if len(layout.response_tokens):
        q, k, v = responses.split([heads, shared, shared], dim=2)
        k = torch.cat([text_k.index_select(0, layout.prompt_of), k], dim=1)
        v = torch.cat([text_v.index_select(0, layout.prompt_of), v], dim=1)
        found = torch.cat([found, attend(q, k, v, layout.visible)])
    flat_found: Tensor = _Unpad.apply(found, layout)  # type: ignore[no-untyped-call]
    return flat_found.unsqueeze(0).to(query.dtype), None


class _Pad(torch.autograd.Function):
    """[N, ...] to [C * P + R * L, ...]. Every flat token has just one padded place, so that forward and backward are
    both a plain gather; autograd's own backward would add up, one token after the other."""

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
