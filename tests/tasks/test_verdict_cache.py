"""The cache of verdicts: what is kept, what is not, several processes at once, files that are broken."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import EndpointSettings, JudgeEngineSettings, JudgeSettings
from sgpo_core.judges.base import Item
from sgpo_core.judges.control_tokens import ControlTokens
from sgpo_core.types import Judgment, Problem, Step, Verdict
from tasks.judges.kinds import kind_of
from tasks.judges.verdict_cache import CachedJudge, VerdictCache, judge_identity, verdict_key
from tests.helpers import REPOSITORY


def item(text: str, prompt: str = "p", reference: str | None = None) -> Item:
    return Item(Problem("id", prompt, "42", reference), (Step(0, len(text), text),))


class Counting:
    """Calls the n-th response it is asked about wrong in step n."""

    def __init__(self, transient: bool = False) -> None:
        self.asked: list[str] = []
        self.transient = transient

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        given = []
        for each in items:
            self.asked.append(each.text)
            verdict = Verdict.abstain("no answer") if self.transient else Verdict(len(self.asked))
            given.append(Judgment(verdict, (verdict,), 1.0, 11, 7, transient=self.transient))
        return given


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.db"


def test_what_is_known_is_not_asked_again_by_anybody(path: Path) -> None:
    first, second = Counting(), Counting()
    given = CachedJudge(first, VerdictCache(path), "j")([item("a"), item("b")])
    again = CachedJudge(second, VerdictCache(path), "j")([item("b"), item("c"), item("a")])
    assert [(g.verdict.first_error_step, g.cached, g.prompt_tokens) for g in given] == [(1, False, 11), (2, False, 11)]
    assert second.asked == ["c"]
    assert [(g.verdict.first_error_step, g.cached, g.prompt_tokens + g.completion_tokens) for g in again] == [
        (2, True, 18),
        (1, False, 18),
        (1, True, 18),
    ]
    assert [(g.votes, g.agreement) for g in again] == [((Verdict(s),), 1.0) for s in (2, 1, 1)]


def test_duplicates_of_a_batch_are_asked_once(path: Path) -> None:
    judge = Counting()
    given = CachedJudge(judge, VerdictCache(path), "j")([item("a"), item("b"), item("a")])
    assert judge.asked == ["a", "b"]
    assert [g.verdict.first_error_step for g in given] == [1, 2, 1]
    assert [(g.cached, g.prompt_tokens) for g in given] == [(False, 11), (False, 11), (True, 11)]


def test_what_may_pass_is_not_kept(path: Path) -> None:
    judge = Counting(transient=True)
    cached = CachedJudge(judge, VerdictCache(path), "j")
    given = cached([item("a"), item("a")])
    assert [(g.verdict.reason, g.cached) for g in given] == [("no answer", False)] * 2
    judge.transient = False
    assert cached([item("a")])[0].verdict == Verdict(2)
    assert judge.asked == ["a", "a"]


def test_a_lasting_abstention_is_kept_with_its_reason(path: Path) -> None:
    verdict = Verdict.abstain("no verdict in: \ud800 \x00 ' \N{SNOWMAN}")
    VerdictCache(path).put({b"k": Judgment(verdict, (verdict, Verdict(None)), 0.5)})
    [kept] = VerdictCache(path).get([b"k"]).values()
    assert kept.verdict == Verdict.abstain("no verdict in: ? \x00 ' \N{SNOWMAN}")  # half a pair has no UTF-8
    assert kept.votes == (verdict, Verdict(None)) and kept.agreement == 0.5


def test_a_verdict_is_for_this_and_nothing_else() -> None:
    steps = (Step(0, 1, "a"), Step(1, 2, "b"))
    items = [
        item("ab"),
        item("ba"),
        item("ab", prompt="q"),
        item("ab", reference="r"),
        item("ab", reference=""),
        Item(Problem("id", "p", "42"), steps),  # the same text, cut otherwise
    ]
    keys = {verdict_key(each, identity) for each in items for identity in ("j", "k")}
    assert len(keys) == 12
    other_id = Item(Problem("another", "p", "43"), item("ab").steps)  # neither is shown to a judge
    assert verdict_key(other_id, "j") == verdict_key(items[0], "j")


def test_another_judge_has_another_identity(tmp_path: Path) -> None:
    for name in ("m", "n"):  # another name alone is not another model
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(name)
    base = JudgeSettings(name="llm", model=str(tmp_path / "m"))
    others = [
        base.model_copy(update=update)
        for update in (
            {"name": "trained"},
            {"prompt": "marker-v1"},
            {"reference": False},
            {"votes": 3},
            {"temperature": 0.7},
            {"seed": 1},
            {"critique_tokens": 7},
            {"thinks": False},
            {"thinks": True},
            {"thinks": True, "thinking_tokens": 7},
            {"engine": JudgeEngineSettings(dtype="bfloat16")},
            {"name": "endpoint", "endpoint": EndpointSettings(url="http://127.0.0.1:1/v1")},
            {"name": "endpoint", "endpoint": EndpointSettings(url="http://127.0.0.1:2/v1")},
            {"name": "endpoint", "endpoint": EndpointSettings(url="http://127.0.0.1:2/v1", reasoning_effort="low")},
            {"name": "endpoint", "endpoint": EndpointSettings(url="http://127.0.0.1:2/v1", extra_body={"top_k": 1})},
        )
    ]
    other_model = base.model_copy(update={"model": str(tmp_path / "n")})
    assert len({identity(each) for each in [base, *others, other_model]}) == 17
    same = base.model_copy(update={"noise": 0.3, "patience": 9, "min_f1": 0.1})  # what happens to verdicts later
    unused = base.model_copy(update={"thinking_tokens": 7})
    assert identity(same) == identity(unused) == identity(base)
    weights = kind_of(base).model(base)
    tokens = {judge_identity(base, weights, ControlTokens(some)) for some in ((), ("<s>",), ("<s>", "</s>"))}
    assert len(tokens) == 3 and identity(base) in tokens


def identity(settings: JudgeSettings) -> str:
    return judge_identity(settings, kind_of(settings).model(settings))


def test_the_first_to_write_decides(path: Path) -> None:
    slow = VerdictCache(path)

    class Overtaken(Counting):
        def __call__(self, items: Sequence[Item]) -> list[Judgment]:
            VerdictCache(path).put({verdict_key(items[0], "j"): Judgment(Verdict(9), (Verdict(9),), 1.0)})
            return super().__call__(items)

    [given] = CachedJudge(Overtaken(), slow, "j")([item("a")])
    assert given.verdict == Verdict(9) and given.votes == (Verdict(9),)
    assert (given.cached, given.prompt_tokens) == (False, 11)  # it was paid for all the same


WRITER = """
import json, sys
from pathlib import Path
from sgpo_core.types import Judgment
from sgpo_core.types import Verdict
from tasks.judges.verdict_cache import VerdictCache

me, cache, seen = int(sys.argv[1]), VerdictCache(Path(sys.argv[2])), {}
print("ready", flush=True)
sys.stdin.readline()
for batch in range(20):
    keys = [bytes([batch, i]) for i in range(50)]
    stands = cache.put({key: Judgment(Verdict(me)) for key in keys})
    assert len(stands) == 50
    seen |= {key.hex(): stands[key].verdict.first_error_step for key in keys}
print(json.dumps(seen))
"""


def test_several_processes_write_at_once_and_end_with_the_same(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number), str(path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
    for writer in writers:  # all at once
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    views = [json.loads(writer.communicate(timeout=60)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 3
    assert all(view == views[0] for view in views) and len(views[0]) == 20 * 50
    kept = VerdictCache(path).get(bytes.fromhex(name) for name in views[0])
    assert {k.hex(): judgment.verdict.first_error_step for k, judgment in kept.items()} == views[0]


def test_threads_share_a_cache(path: Path) -> None:
    cached, results = CachedJudge(Counting(), VerdictCache(path), "j"), []
    items = [item(str(i)) for i in range(300)]
    threads = [threading.Thread(target=lambda: results.append(cached(items))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(g.verdict.first_error_step for g in result) for result in results}) == 1 and len(results) == 6


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE savings (amount INTEGER)")
    connection.close()


def of_another_version(path: Path) -> None:
    VerdictCache(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


@pytest.mark.parametrize("spoil", [foreign, of_another_version, garbage])
def test_a_file_that_is_not_ours_is_set_aside(path: Path, spoil, caplog: pytest.LogCaptureFixture) -> None:
    spoil(path)
    before = path.read_bytes()
    cache = VerdictCache(path)
    cache.put({b"k": Judgment(Verdict(3))})
    assert VerdictCache(path).get([b"k"])[b"k"].verdict == Verdict(3)
    [aside] = path.parent.glob("verdicts.db.aside-*[0-9]")
    assert aside.read_bytes() == before and aside.name in caplog.text


def test_an_empty_file_is_as_good_as_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.touch()
    assert VerdictCache(path).put({b"k": Judgment(Verdict(3))})[b"k"].verdict == Verdict(3)
    assert not caplog.records


def test_a_file_that_breaks_while_it_is_used_gives_way_to_a_new_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = VerdictCache(path)
    writer.put({i.to_bytes(32, "big"): Judgment(Verdict(1, reason="x" * 100)) for i in range(2000)})
    writer.close()
    cache, other = VerdictCache(path), VerdictCache(path)
    with path.open("r+b") as file:  # the tables are still there, their contents not
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    judge = Counting()
    keys = [i.to_bytes(32, "big") for i in range(2000)]
    assert cache.get(keys) == {} and other.get(keys) == {}
    assert [g.verdict for g in CachedJudge(judge, cache, "j")([item("a")])] == [Verdict(1)]
    assert CachedJudge(judge, other, "j")([item("a")])[0].cached  # both have the new file
    assert len(list(path.parent.glob("verdicts.db.aside-*[0-9]"))) == 1 and "aside" in caplog.text


def test_a_cache_that_can_not_be_written_costs_no_verdict(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = VerdictCache(path)
    cache._connection.execute("PRAGMA query_only = 1")  # as on a disk that is full
    caplog.set_level(logging.WARNING)
    assert CachedJudge(Counting(), cache, "j")([item("a")])[0].verdict == Verdict(1)
    assert "judging without it" in caplog.text


def test_no_place_for_a_cache_stops_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "verdicts.db", tmp_path):
        with pytest.raises(ConfigError, match=r"judge\.cache=false"):
            VerdictCache(place)
