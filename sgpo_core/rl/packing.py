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

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the G prompts and R responses of a micro-batch stand among its N flat tokens; P and L: the longest of
    each. Padding points to token 0, and nothing comes of it.

    prompt_tokens int64 [G, P] and response_tokens int64 [R, L]: places among the flat tokens; prompt_of int64 [R]: a
    response's prompt; visible bool [R, 1, L, P + L]: what a response's token attends to, of its prompt and of itself;
    place int64 [N]: where a flat token is in the G * P + R * L padded ones. longest: tokens of the longest prompt with
    its response."""

    prompt_tokens: Tensor
    response_tokens: Tensor
    prompt_of: Tensor
    visible: Tensor
    place: Tensor
    longest: int

    def to(self, device: torch.device) -> Layout:
        tensors = ("prompt_tokens", "response_tokens", "prompt_of", "visible", "place")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


@dataclass(frozen=True, slots=True)
class Packed:
    """input_ids, position_ids int64 [N]; first int64 [R]: flat place of each response's first token; before int64 [R]:
    of the token that predicts it, its prompt's last."""

    input_ids: Ids
    position_ids: Ids
    first: Ids
    before: Ids
    layout: Layout


def pack(prompts: Sequence[npt.ArrayLike], responses: Sequence[npt.ArrayLike]) -> Packed:
    """Response i, of at least one token, answers prompt i, of at least one token; equal prompts become one."""
    texts, answers = [np.asarray(p, np.int64) for p in prompts], [np.asarray(r, np.int64) for r in responses]
    number: dict[bytes, int] = {}
    prompt_of = np.array([number.setdefault(text.tobytes(), len(number)) for text in texts])
    once = [texts[int(np.argmax(prompt_of == g))] for g in range(len(number))]
    pieces, positions = [], []
    prompt_start, first = np.zeros(len(once), np.int64), np.zeros(len(answers), np.int64)
    total = 0
    for g, text in enumerate(once):
        prompt_start[g] = total
        pieces.append(text)
        positions.append(np.arange(len(text)))
        total += len(text)
        for r in np.flatnonzero(prompt_of == g):
            first[r] = total
            pieces.append(answers[r])
            positions.append(len(text) + np.arange(len(answers[r])))
            total += len(answers[r])
    prompt_length, length = np.array([len(t) for t in once]), np.array([len(a) for a in answers])
    before = (prompt_start + prompt_length - 1)[prompt_of]
    layout = _layout(prompt_start, prompt_length, prompt_of, first, length, total)
    return Packed(np.concatenate(pieces), np.concatenate(positions), first, before, layout)


def _layout(prompt_start: Ids, prompt_length: Ids, prompt_of: Ids, first: Ids, length: Ids, total: int) -> Layout:
    prompt_tokens, prompt_there = _padded(prompt_start, prompt_length)
    response_tokens, response_there = _padded(first, length)
    longest = response_tokens.shape[1]
    visible = np.concatenate(
        [
            np.repeat(prompt_there[prompt_of][:, None, :], longest, axis=1),
            np.broadcast_to(np.tril(np.ones((longest, longest), bool)), (len(first), longest, longest)),
        ],
        axis=2,
    )
    place = np.zeros(total, np.int64)
    place[prompt_tokens[prompt_there]] = np.flatnonzero(prompt_there)
    place[response_tokens[response_there]] = prompt_tokens.size + np.flatnonzero(response_there)
    return Layout(
        prompt_tokens=torch.from_numpy(prompt_tokens),
        response_tokens=torch.from_numpy(response_tokens),
        prompt_of=torch.from_numpy(prompt_of),
        visible=torch.from_numpy(visible[:, None]),
        place=torch.from_numpy(place),
        longest=int((prompt_length[prompt_of] + length).max()),
    )


def _padded(start: Ids, length: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Flat places of stretches of tokens as rows [stretches, longest], and where there is one."""
    offsets = np.arange(length.max())
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
    flat_q, flat_k, flat_v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
    queries, groups = query.shape[1], query.shape[1] // key.shape[1]

    def at(flat: Tensor, index: Tensor) -> Tensor:
        """[rows, heads, columns, size]"""
        return flat.index_select(0, index.flatten()).view(*index.shape, *flat.shape[1:]).transpose(1, 2)

    def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        """[rows * columns, heads, size]"""
        k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
        found = nn.functional.scaled_dot_product_attention(q, k, v, visible, is_causal=visible is None, scale=scaling)
        return found.transpose(1, 2).flatten(0, 1)

    prompt_k, prompt_v = at(flat_k, layout.prompt_tokens), at(flat_v, layout.prompt_tokens)
    prompts = attend(at(flat_q, layout.prompt_tokens), prompt_k, prompt_v, None)
    k, v = (
        torch.cat([of_prompt.index_select(0, layout.prompt_of), at(flat, layout.response_tokens)], dim=2)
        for of_prompt, flat in ((prompt_k, flat_k), (prompt_v, flat_v))
    )
    responses = attend(at(flat_q, layout.response_tokens), k, v, layout.visible)
    found = torch.cat([prompts, responses]).index_select(0, layout.place)
    assert found.shape[1] == queries
    return found.unsqueeze(0).to(query.dtype), None
