"""Generation on the rollout engines: requests in, token ids and texts out, a group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray

from tasks.data import decode_all
from tasks.engines.cluster import Engines
from tasks.engines.faults import first_of, hung, loss
from tasks.workers.rollout_worker import Completion, Request, Sampling


@dataclass(frozen=True, slots=True)
class Generated:
    """A response as its engine has sampled it, and the text that its tokens spell."""

    text: str
    completion: Completion


def group_requests(
    prompts: Sequence[Sequence[int]], group_size: int, seed: Callable[[int, int], int]
) -> list[list[Request]]:
    """`group_size` requests for each prompt; `seed(group, sample)` gives each its own."""
    return [[Request(prompt, seed(g, s)) for s in range(group_size)] for g, prompt in enumerate(prompts)]


def generate_groups(
    engines: Engines,
    tokenizer: Any,
    groups: Sequence[Sequence[Request]],
    sampling: Sampling,
    on_group: Callable[[int, list[Generated]], None] | None = None,
) -> list[list[Generated]]:
    """The responses to all requests, in their order. `on_group` gets each group (its number, its responses) when its
    last response is there, while others are still being generated."""
    done: dict[int, list[Generated]] = {}
    for number, completions in stream_groups(engines, groups, sampling):
        texts = decode_all(tokenizer, [completion.token_ids for completion in completions])
        done[number] = [Generated(*parts) for parts in zip(texts, completions, strict=True)]
        if on_group is not None:
            on_group(number, done[number])
    return [done[number] for number in range(len(groups))]


def stream_groups(
    engines: Engines, groups: Sequence[Sequence[Request]], sampling: Sampling
) -> Iterator[tuple[int, list[Completion]]]:
    """(number of the group, its completions) in the order in which groups are finished, by whichever engine. Whole
    groups are spread over the engines: they share a prompt, whose prefix is then computed once."""
    engines.turn_of("engines")
    count = len(engines.rollouts)
    streams: dict[Any, int] = {  # -> number of the engine
        engine.generate.options(num_returns="streaming").remote(groups[e::count], sampling): e
        for e, engine in enumerate(engines.rollouts)
    }
    while streams:
        ready, _ = first_of(list(streams), engines.deadline_s)
        if not ready:
            raise hung([f"rollout engine {e}" for e in streams.values()], engines.deadline_s)
        [stream] = ready
        try:
            place, group = ray.get(next(cast(Any, stream)))
        except StopIteration:
            del streams[stream]
            continue
        except ray.exceptions.RayError as error:
            raise loss(f"rollout engine {streams[stream]}", error) or error from None
        yield place * count + streams[stream], group
