"""README.md of a run's responses as a data set of the Hugging Face hub: where they come from, what the columns mean."""

from __future__ import annotations

from typing import Any

import yaml

COLUMNS = {
    "iteration": "iteration of training that the response belongs to, from 1",
    "problem_id": "id of the problem",
    "domain": "part of the problem set that the problem belongs to, empty where it has none",
    "group": "number of the group in its iteration; the responses of a group are to the same problem",
    "sample": "number of the response in its group",
    "prompt": "the problem, without the texts that the settings of the run put before and after it",
    "answer": "the right final answer",
    "reference": "a worked solution, where the problem set has one",
    "answer_form": "how a response has to give its final answer",
    "prompt_ids": "tokens of the prompt",
    "token_ids": "tokens of the response, its end included",
    "rollout_logprobs": "log-probability of each token when it was sampled, nats",
    "response": "text of the response, without special tokens",
    "truncated": "whether it was cut off at the length limit",
    "policy_version": "iterations of training that the policy which wrote it had behind it",
    "seed": "seed that it was sampled with",
    "grade": "what became of its answer: correct, wrong, unparsable, timeout, error",
    "extracted_answer": "its final answer as written",
    "outcome_reward": "1 for a correct answer, else 0",
    "step_ends": "character offset behind each of its steps",
    "first_error_step": "first wrong step by the judge, from 1; null where it found none",
    "verdict_status": "ok, or abstained where the judge said nothing; null where it was not judged",
    "verdict_reason": "the judge's reason, or why it abstained",
    "verdict_votes": "votes of the judge: first wrong step, 0 for none, -1 for an abstention",
    "verdict_prompt_tokens": "tokens that the judge read",
    "verdict_completion_tokens": "tokens that the judge wrote",
    "verdict_cached": "whether the verdict was known from an earlier response",
    "verdict_checked_steps": "steps that the rule judge could check",
    "trainer_logprobs": "log-probability of each token by the trainer before the update, nats; null where no entropies "
    "are needed",
    "trainer_entropies": "entropy of the distribution of each token by the trainer, nats; null where none are needed",
    "rts": "reasoning trajectory score: share of right steps before the first wrong one, 0 to 1",
    "padded": "whether it is longer than a solution is expected to be",
    "shaped_reward": "the reward that advantages are made of, 0 to 1",
    "excluded": "whether nothing is known of it, so that it was left out of the update",
    "filtered": "whether the algorithm's filter left it out of the update",
    "advantage": "its advantage in the update",
    "token_credit": "share of the advantage that each token got",
}

_CARD = """---
{metadata}
---

# Responses of {run_id}

{responses} responses of {iterations} iterations of {algorithm}, with their grades, verdicts, rewards and advantages.
{origin} The problems, answers and worked solutions are those of {data}{generated}.

```python
from datasets import load_dataset

responses = load_dataset("{name}", split="train")
```

There is one file for each iteration, and one row for each response. A value is null where its stage had nothing to say.
Where `verdict_reason` tells of a judge's server, it says only with which status that answered.

| column | meaning |
|---|---|
{columns}

## License

This card grants no license. Problems that come from another data set keep the license of that one. The model that wrote
the responses may have terms for what it writes: look at its license. Whoever has published this data set can set
`license` in the metadata of this card.
"""


def data_card(
    name: str,
    run_id: str,
    algorithm: str,
    iterations: int,
    responses: int,
    start: str,
    data: str,
    recorded: bool,
) -> str:
    """`name`: on the hub. `start`: the model that training began with. `data`: the problem set, or of `recorded`
    responses what they were read from."""
    metadata: dict[str, Any] = {
        "pretty_name": f"Responses of {run_id}",
        "task_categories": ["text-generation"],
        "tags": [*dict.fromkeys(["sgpo", "reinforcement-learning", algorithm])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    written = f"They were recorded before the training (`{data}`), and a policy that began as {start} learnt from them."
    sampled = f"They were sampled during training from the policy, which began as {start}."
    return _CARD.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False).strip(),
        name=name,
        run_id=run_id,
        algorithm=algorithm,
        iterations=iterations,
        responses=f"{responses:,}",
        origin=written if recorded else sampled,
        data=f"`{data}`",
        generated=", which a program generates" if data in ("chains", "reasoning_gym") else "",
        columns="\n".join(f"| `{column}` | {meaning} |" for column, meaning in COLUMNS.items()),
    )
