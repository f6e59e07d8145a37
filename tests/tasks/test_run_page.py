"""The pages of flow runs in Prefect; tests/flows finds them there."""

from __future__ import annotations

from pathlib import Path

from tasks.reports.result_page import result_page
from tasks.reports.run_page import run_page

START = {"eval/chains/avg_at_k": 0.0, "time/iteration_s": 1.0}
LATER = {"eval/chains/avg_at_k": 0.25, "group/all_negative_frac": 0.5, "reward/outcome_mean": 0.125}


def test_curves_are_a_table_and_the_rest_is_linked() -> None:
    page = run_page(Path("/runs/tiny-s0"), 30, {10: LATER, 0: START}, "experiment `sgpo`", "http://127.0.0.1:5000/#/x")
    assert page.splitlines()[0] == "# tiny-s0" and "after iteration 10 of 30" in page
    assert "| iteration | chains avg@k | all-negative groups | reward |" in page
    assert "| 0 | 0.000 | - | - |\n| 10 | 0.250 | 0.500 | 0.125 |" in page
    assert "[MLflow](http://127.0.0.1:5000/#/x)" in page and "`sgpo traces /runs/tiny-s0`" in page


def test_without_a_server_it_says_how_to_start_one() -> None:
    assert "MLflow (`make up`), experiment `sgpo`" in run_page(Path("r"), 1, {0: START}, "experiment `sgpo`", "")


def test_what_was_lost_is_a_table() -> None:
    # 86,400 s a day: the second day of 1970, at one second past midnight.
    lost = [(86401.0, "trainer rank 0 died (a | b\nc)", 41.4)]
    page = run_page(Path("r"), 1, {0: START}, "experiment `sgpo`", "", lost)
    head = "| when (UTC) | what | seconds until it went on |\n| --- | --- | --- |"
    assert f"{head}\n| 1970-01-02 00:00:01 | trainer rank 0 died (a / b c) | 41 |\n\n" in page
    assert "lost" not in run_page(Path("r"), 1, {0: START}, "experiment `sgpo`", "")


RESULT = {"mlflow_run_id": "abc", "run_dir": "/runs/judges/j", "final_metrics": {"judge_training/accuracy": 0.91234}}


def test_a_result_has_its_numbers_and_what_comes_next() -> None:
    page = result_page("Judge j", RESULT, "", "http://127.0.0.1:5000/#/x", ["Measured: `sgpo judge-eval`"])
    assert page.startswith("# Judge j\n\n| metric | value |\n| --- | --- |\n| judge_training/accuracy | 0.9123 |\n")
    links = [
        "All numbers: [MLflow](http://127.0.0.1:5000/#/x)",
        "Folder: `/runs/judges/j`",
        "Measured: `sgpo judge-eval`",
    ]
    assert page.splitlines()[-3:] == [f"* {link}" for link in links]


def test_a_table_stands_in_the_place_of_the_metrics() -> None:
    page = result_page("Judge j", RESULT, "subset F1\nall    0.9", "", [])
    assert "```\nsubset F1\nall    0.9\n```" in page and "judge_training" not in page
    assert "MLflow (`make up`), run `abc`" in page
