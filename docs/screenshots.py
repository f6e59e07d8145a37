"""Takes the screenshots of docs/images anew, of real pages in headless Chromium.

    make demo && make up && make screenshots

needs Chromium (`apt install chromium`); the target installs Playwright, which drives it, into a folder of its own.
Pages: the report of a sweep, wide and on a phone; a colored trace of one of its SGPO runs; MLflow's chart view grouped
by algorithm, an SGPO run there, and its settings beside a GRPO run's; in Prefect the sweep's run, the form of a
deployment, and a run of `sgpo-online/7b` that this machine has to refuse (it must have fewer than eight GPUs).
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin
from urllib.request import Request, urlopen

from mlflow.entities import Run
from playwright.sync_api import HttpCredentials, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tasks.gpus import devices  # noqa: E402
from tasks.paths import home  # noqa: E402
from tasks.reports.traces import write_traces  # noqa: E402
from tasks.services.environment import addresses  # noqa: E402
from tasks.services.login import kept_login  # noqa: E402
from tasks.tracking.server import open_client  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"
PICTURES = (
    *("report", "report-narrow", "traces", "mlflow", "mlflow-run", "mlflow-compare"),
    *("prefect", "prefect-form", "prefect-refused"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", default="demo-hard", help="tag of the sweep [demo-hard]")
    parser.add_argument("--experiment", default="demo", help="its MLflow experiment [demo]")
    parser.add_argument("--iteration", type=int, default=12, help="of the trace [12]")
    parser.add_argument("--only", choices=PICTURES, nargs="+", default=PICTURES, help="these pictures [all]")
    options = parser.parse_args()
    folder = home() / options.experiment
    runs = {name: run_of(options.sweep, name) for name in ("sgpo", "grpo")}
    run = Path(runs["sgpo"].data.tags["run_dir"])
    servers, login = addresses(), kept_login() or ""
    user, _, password = login.partition(":")
    mlflows: HttpCredentials = {"username": user, "password": password, "origin": servers["mlflow"]}
    trace = write_traces(run, [options.iteration], run / "traces")
    report = (folder / f"report-{options.sweep}" / "report.html").as_uri()
    pages: dict[str, Callable[[Page], None]] = {
        "report": lambda page: opened(page, report, 1),
        "report-narrow": lambda page: opened(page, report, 1),
        "traces": lambda page: opened(page, first_page(trace), 1),
        "mlflow": lambda page: grouped(page, servers["mlflow"], options.experiment, options.sweep),
        "mlflow-run": lambda page: of_training(page, run_page(servers["mlflow"], runs["sgpo"])),
        "mlflow-compare": lambda page: compared(page, servers["mlflow"], list(runs.values())),
        "prefect": lambda page: logged_in(page, login, newest_sweep(servers["prefect"])),
        "prefect-form": lambda page: logged_in(page, login, form(servers["prefect"], "sgpo-online/tiny")),
        "prefect-refused": lambda page: logged_in(page, login, ended_run(servers["prefect"], "sgpo-online/7b")),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in options.only:
            width = 420 if name.endswith("narrow") else 1300
            # Where the browser answers for MLflow, Prefect's page never learns that it has to ask for the login.
            login_of = mlflows if name.startswith("mlflow") else None
            page = browser.new_page(viewport={"width": width, "height": 1000}, http_credentials=login_of)
            pages[name](page)
            page.screenshot(path=IMAGES / f"{name}.png")
            print(IMAGES / f"{name}.png")
        browser.close()


def run_of(sweep: str, algorithm: str) -> Run:
    """A run of the sweep in MLflow."""
    client = open_client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    [found, *_] = client.search_runs(experiments, f"tags.sweep = '{sweep}' and tags.algorithm = '{algorithm}'")
    return found


def of_training(page: Page, address: str) -> None:
    """A page of MLflow as it is for training, without the assistant, which takes a third of the width."""
    opened(page, address, 6)
    page.get_by_text("Model training", exact=True).click()
    opened(page, address, 8)
    page.get_by_role("button", name="Close", exact=True).click()
    page.wait_for_timeout(1000)


def run_page(mlflow: str, run: Run) -> str:
    return f"{mlflow}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def compared(page: Page, mlflow: str, runs: list[Run]) -> None:
    """MLflow's comparison of the runs: the settings in which they differ."""
    ids, experiments = ([getattr(run.info, name) for run in runs] for name in ("run_id", "experiment_id"))
    query = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(sorted(set(experiments))))}"
    of_training(page, f"{mlflow}/#/compare-runs?{query}")
    page.get_by_text("Parameters", exact=True).last.evaluate("heading => heading.scrollIntoView()")
    page.get_by_text("Show diff only", exact=True).first.click()
    page.wait_for_timeout(1000)


def opened(page: Page, url: str, wait_s: float) -> None:
    """Waits in a way in which the browser can still be given a login."""
    page.goto(url)
    page.wait_for_timeout(1000 * wait_s)


def first_page(index: Path) -> str:
    """The first page of a trace, beside its index."""
    return min(path for path in index.parent.rglob("*.html") if path != index).as_uri()


def grouped(page: Page, mlflow: str, experiment: str, sweep: str) -> None:
    """MLflow's chart view of the sweep, with the clicks that a person makes."""
    number = ask(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment)}")
    search = quote(f"tags.sweep = '{sweep}'")
    address = f"{mlflow}/#/experiments/{number['experiment']['experiment_id']}/runs?compareRunsMode=CHART"
    opened(page, f"{address}&searchFilter={search}", 8)
    page.get_by_role("button", name="Group by").click()
    page.wait_for_timeout(1500)
    page.get_by_text("algorithm", exact=True).first.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Close", exact=True).click()  # of the assistant, which takes a third of the width
    page.wait_for_timeout(8000)


def logged_in(page: Page, login: str, address: str) -> None:
    """A page of Prefect, which asks for the login first. (At the page of a run it would lead to an empty one.)"""
    opened(page, urljoin(address, "/login"), 4)
    page.get_by_placeholder("admin:pass").fill(login)
    page.keyboard.press("Enter")
    opened(page, address, 8)


def form(prefect: str, deployment: str) -> str:
    """The page of the form by which a run of a deployment is started."""
    return f"{prefect}/deployments/deployment/{ask(f'{prefect}/api/deployments/name/{deployment}')['id']}/run"


def ended_run(prefect: str, deployment: str) -> str:
    """The page of a flow run that is started here, once it has ended. It has to be one that can't run here."""
    if len(devices()) >= 8:
        raise SystemExit(f"{deployment} would run on this machine: choose pictures without prefect-refused (--only)")
    number = ask(f"{prefect}/api/deployments/name/{deployment}")["id"]
    run = ask(f"{prefect}/api/deployments/{number}/create_flow_run", b"{}")["id"]
    until = time.monotonic() + 180
    while ask(f"{prefect}/api/flow_runs/{run}")["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        if time.monotonic() > until:
            raise SystemExit(f"{deployment} did not end within three minutes: is the worker of make up there?")
        time.sleep(2)
    return f"{prefect}/runs/flow-run/{run}"


def newest_sweep(prefect: str) -> str:
    """The page of the sweep that ended last."""
    ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "flows": {"name": {"any_": ["sgpo-sweep"]}}}
    query = json.dumps({**ended, "sort": "END_TIME_DESC", "limit": 1}).encode()
    [run] = ask(f"{prefect}/api/flow_runs/filter", query)
    return f"{prefect}/runs/flow-run/{run['id']}"


def ask(url: str, query: bytes | None = None) -> Any:
    login = base64.b64encode((kept_login() or "").encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    with urlopen(Request(url, query, headers), timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
