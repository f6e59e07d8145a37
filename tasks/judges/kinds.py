"""The kinds of judges, `judge.name`: a class each, and a file in conf/judge.

A new kind is a class below with the decorator `@kind`, which says what has to be there before a run starts, and opens
the judge; nothing else compares names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.judge_training import is_preset
from sgpo_core.judges.base import Judge, NoisyJudge, RandomJudge
from sgpo_core.judges.chat import Chat
from sgpo_core.judges.control_tokens import NO_CONTROLS, ControlTokens
from sgpo_core.judges.prompted import PromptedJudge
from sgpo_core.judges.prompts import PROMPTS
from sgpo_core.judges.reference import VERSION as REFERENCE_VERSION
from sgpo_core.judges.reference import reference
from sgpo_core.judges.rule import VERSION, rule
from sgpo_core.storage.weights import weights_hash
from tasks.engines.judge_engines import CALLS, judge_engines
from tasks.judges.endpoint import EndpointChat
from tasks.judges.endpoint_access import api_key, base_url
from tasks.judges.verdict_cache import CachedJudge, VerdictCache, judge_identity
from tasks.models.folders import missing_model
from tasks.paths import home


class JudgeKind(ABC):
    """What a run has to know of a judge besides its settings; the answers here are those of a judge that is code."""

    calls_at_a_time = 1  # batches that should be under way together
    is_exact_rule = False  # the judge that others are compared with
    trainable = False  # judge.model may name a preset in conf/judge_training
    local = False  # judge.model is a model that engines here hold

    def missing(self, settings: JudgeSettings) -> list[str]:
        """What the judge needs and is not there. Raises ConfigError for a setting that can't be used."""
        return []

    def model(self, settings: JudgeSettings) -> str:
        """Names what judges, wherever it can change under its name: weights, a server."""
        return settings.model

    @abstractmethod
    def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
        """The judge, ready to be asked; what it holds is let go of with `held`."""


KINDS: dict[str, JudgeKind] = {}


def kind(name: str) -> Callable[[type[JudgeKind]], type[JudgeKind]]:
    """Makes a class the kind of judges that `judge.name` calls by this name."""

    def register(found: type[JudgeKind]) -> type[JudgeKind]:
        KINDS[name] = found()
        return found

    return register


def kind_of(settings: JudgeSettings) -> JudgeKind:
    """Raises ConfigError for a name that no kind has."""
    if settings.name not in KINDS:
        raise ConfigError(f"judge.name={settings.name}: choose one of {', '.join(KINDS)}")
    return KINDS[settings.name]


def with_engines(settings: JudgeSettings) -> JudgeSettings | None:
    """The judge, if engines of the run's own hold it."""
    return settings if kind_of(settings).local else None


@contextmanager
def open_judge(settings: JudgeSettings) -> Iterator[Judge]:
    """The judge, ready to be asked; what it holds (engines, connections) is let go of at the end of the block."""
    with ExitStack() as held:
        judge = kind_of(settings).open(settings, held)
        yield NoisyJudge(judge, settings.noise, settings.seed) if settings.noise else judge


@kind("rule")
class RuleKind(JudgeKind):
    """Checks arithmetic; exact on `chains`."""

    is_exact_rule = True

    def model(self, settings: JudgeSettings) -> str:
        return VERSION

    def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
        return rule


@kind("reference")
class ReferenceKind(JudgeKind):
    """Compares numbers with those of the worked solution."""

    def model(self, settings: JudgeSettings) -> str:
        return REFERENCE_VERSION

    def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
        return reference


@kind("random")
class RandomKind(JudgeKind):
    """A control that SGPO must not learn from."""

    def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
        return RandomJudge(settings.seed)


class PromptedKind(JudgeKind):
    """A language model that is asked, wherever it runs."""

    @abstractmethod
    def chat(self, settings: JudgeSettings, held: ExitStack) -> tuple[Chat, ControlTokens]:
        """Where the model is asked, and the control tokens of its tokenizer, as far as they are known."""

    def missing(self, settings: JudgeSettings) -> list[str]:
        return [] if settings.model else [f"judge.model: which model judges? (judge.name={settings.name})"]

    def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
        chat, controls = self.chat(settings, held)
        judge = PromptedJudge(chat, PROMPTS[settings.prompt], settings, controls)
        if not settings.cache:
            return judge
        cache = VerdictCache(home() / "verdicts.db")
        held.callback(cache.close)
        return CachedJudge(judge, cache, judge_identity(settings, self.model(settings), controls))


@kind("llm")
class LlmKind(PromptedKind):
    """Any chat model, in vLLM engines of the run."""

    calls_at_a_time = CALLS
    local = True

    def missing(self, settings: JudgeSettings) -> list[str]:
        if self.trainable and is_preset(settings.model):
            return []
        return super().missing(settings) or missing_model("judge.model", settings.model)

    def model(self, settings: JudgeSettings) -> str:
        return f"{weights_hash(Path(settings.model))} in {settings.engine.dtype}"

    def chat(self, settings: JudgeSettings, held: ExitStack) -> tuple[Chat, ControlTokens]:
        engines = judge_engines(settings.model, settings.engine)
        return engines, engines.controls


@kind("trained")
class TrainedKind(LlmKind):
    """A small model that was fine-tuned to judge."""

    trainable = True


@kind("endpoint")
class EndpointKind(PromptedKind):
    """Any OpenAI-compatible server."""

    calls_at_a_time = 8  # a slow reply holds up few others

    def missing(self, settings: JudgeSettings) -> list[str]:
        if not (missing := super().missing(settings)):
            api_key(settings.endpoint, base_url(settings.endpoint))  # refused here where they can't be used
        return missing

    def model(self, settings: JudgeSettings) -> str:
        return f"{settings.model} at {base_url(settings.endpoint)}"  # models of two servers may share a name

    def chat(self, settings: JudgeSettings, held: ExitStack) -> tuple[Chat, ControlTokens]:
        return held.enter_context(EndpointChat(settings.endpoint, settings.model)), NO_CONTROLS
