"""`tasks.services` without its servers: what it refuses, whom it does not end, and what it leaves to the user."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from tasks.paths import REPOSITORY
from tasks.services import access, processes
from tasks.services import stack as services
from tasks.services.environment import PAGES, addresses, option, service_environment
from tasks.services.login import CLIENT, MLFLOW_PASSWORD, SERVER, kept_login, make_login, mlflow_login, set_login
from tests.helpers import greeting, places_of, shell_environment, status

USER_VARIABLES = (
    *("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "MLFLOW_TRACKING_URI", "DO_NOT_TRACK"),
    PAGES,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, a user who has set nothing, and no file in the repository."""
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    for name in (*USER_VARIABLES, CLIENT, SERVER, MLFLOW_PASSWORD):
        monkeypatch.setenv(name, "")  # so that what the tests set goes away again
        monkeypatch.delenv(name)
    monkeypatch.setattr(access, "POINTER", tmp_path / "prefect.toml")
    (tmp_path / "services").mkdir()
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def write_record(home: Path, name: str, pid: int, started: float, login: bool = False) -> Path:
    pid_file = home / "services" / f"{name}.json"
    pid_file.write_text(json.dumps(asdict(processes.Record(pid, started, "http://127.0.0.1:4299", login))))
    return pid_file


@pytest.mark.parametrize("busy", ["prefect", "mlflow"])
def test_a_busy_port_is_named_with_its_setting_and_nothing_starts(
    home: Path, capsys: pytest.CaptureFixture[str], busy: str
) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        ports = dict.fromkeys(services.PORTS, free.getsockname()[1]) | {busy: taken.getsockname()[1]}
        free.close()
        code = services.main(["up", *(f"--{name}-port={port}" for name, port in ports.items())])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert f"port {ports[busy]} " in error and f"SGPO_{busy.upper()}_PORT" in error
    assert {path.name for path in (home / "services").iterdir()} == {"lock"}


@pytest.mark.parametrize(("wants", "kept", "goes_on"), [(True, True, True), (True, False, False), (False, False, True)])
def test_what_runs_goes_on_unless_its_login_was_removed(
    home: Path,
    sleeper: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
    wants: bool,
    kept: bool,
    goes_on: bool,
) -> None:
    """What an earlier version started wants none, and may be in the middle of a run."""
    if kept:
        make_login()
    write_record(home, "mlflow", sleeper.pid, psutil.Process(sleeper.pid).create_time(), wants)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]  # nothing starts
        assert services.main(["up", f"--prefect-port={port}", f"--mlflow-port={port}"]) == 2
    assert (sleeper.poll() is None) is goes_on
    assert ("mlflow keeps the login, or none" in capsys.readouterr().out) is not wants


def test_a_port_of_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGPO_MLFLOW_PORT", "often")
    with pytest.raises(SystemExit, match="2"):
        services.main(["up"])


def test_down_ends_the_process_of_a_pid_file(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    pid_file = write_record(home, "mlflow", sleeper.pid, psutil.Process(sleeper.pid).create_time())
    assert addresses() == {"mlflow": "http://127.0.0.1:4299"}
    assert services.main(["down"]) == 0
    assert sleeper.wait(timeout=5) != 0
    assert not pid_file.exists()


def test_down_spares_a_process_that_got_the_pid_later(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    started = psutil.Process(sleeper.pid).create_time() - 60
    pid_file = write_record(home, "mlflow", sleeper.pid, started)
    assert addresses() == {}
    assert services.main(["down"]) == 0
    assert sleeper.poll() is None
    assert not pid_file.exists()


def test_stop_ends_orphans_by_their_mark_and_no_others(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    marked = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], env=os.environ | {processes.MARK: f"worker@{home}"}
    )
    try:
        assert processes.stop(home / "services" / "worker.json", f"worker@{home}")
        assert marked.wait(timeout=5) != 0
    finally:
        marked.kill()
    assert sleeper.poll() is None


def test_environment_keeps_everything_below_home(home: Path) -> None:
    variables = service_environment()
    assert variables["PREFECT_HOME"] == f"{home}/prefect"
    assert variables["MLFLOW_TRACKING_URI"] == f"sqlite:///{home}/mlflow.db"
    assert "PREFECT_API_URL" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(REPOSITORY)
    assert variables["PATH"].split(os.pathsep)[0] == f"{sys.prefix}/bin"


def test_environment_points_to_the_server_while_it_lives(home: Path) -> None:
    write_record(home, "prefect", os.getpid(), psutil.Process().create_time())
    assert service_environment()["PREFECT_API_URL"] == "http://127.0.0.1:4299/api"
    write_record(home, "prefect", os.getpid(), 0.0)
    assert "PREFECT_API_URL" not in service_environment()


def test_environment_leaves_what_the_user_has_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(home, "prefect", os.getpid(), psutil.Process().create_time())
    chosen = {name: f"http://chosen/{name}" for name in USER_VARIABLES}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert chosen.items() <= service_environment().items()


def test_servers_that_the_user_names_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> list[str]:
        return [service.name for service in services._plan(services.PORTS)]

    assert names() == ["prefect", "mlflow", "worker"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://orchestration:4200/api")
    assert names() == ["worker"]


ASK = """
import os
from prefect.server.api.server import create_app
from starlette.testclient import TestClient

client = TestClient(create_app(ephemeral=True, ignore_cache=True))
asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
for origin in ("https://site.example", "http://127.0.0.1:4200", "http://localhost:4200", "null"):
    reply = client.options("/api/flow_runs/", headers=asked | {"Origin": origin})
    print(origin, reply.headers.get("access-control-allow-origin"))
"""


def test_only_its_own_pages_may_ask_the_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of another origin asks the browser, which asks the server, before it may send JSON."""
    [server, *_] = services._plan(services.PORTS)
    variables = services._variables(server, f"{server.url}/api")
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=home, env=variables, capture_output=True, text=True, check=True
    )
    allowed = dict(line.split() for line in done.stdout.splitlines())
    own = {page: page for page in ("http://127.0.0.1:4200", "http://localhost:4200")}
    assert allowed == {"https://site.example": "None", "null": "None", **own}
    assert service_environment()[PAGES] == "http://127.0.0.1", "of a server for one process"
    monkeypatch.setenv(PAGES, "https://prefect.example")
    assert services._variables(server, f"{server.url}/api")[PAGES] == "https://prefect.example"


def test_folders_with_secrets_are_the_users_alone(home: Path) -> None:
    (home / "services").rmdir()
    services.main(["down"])
    assert [(home / name).stat().st_mode & 0o77 for name in ("services", "prefect")] == [0, 0]


def test_the_login_is_made_once_and_is_the_users_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        login = make_login()
    finally:
        os.umask(before)
    user, _, password = login.partition(":")
    assert user == "sgpo" and len(password) > 40 and make_login() == kept_login() == login
    assert (home / "services" / "login").stat().st_mode & 0o777 == 0o600
    (home / "services" / "login").unlink()
    assert kept_login() is None and make_login() != login


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({}, {SERVER: "ours", CLIENT: "ours"}),
        ({SERVER: "a:b"}, {SERVER: "a:b", CLIENT: "a:b"}),
        ({CLIENT: "a:b"}, {SERVER: "a:b", CLIENT: "a:b"}),
        ({CLIENT: "a:b", SERVER: "c:d"}, {SERVER: "c:d", CLIENT: "a:b"}),
        ({SERVER: ""}, {CLIENT: ""}),
        ({CLIENT: ""}, {CLIENT: ""}),
    ],
)
def test_a_login_that_the_user_has_set_holds_and_an_empty_one_is_none(
    chosen: dict[str, str], wanted: dict[str, str]
) -> None:
    variables = dict(chosen)
    set_login(variables, "ours")
    assert variables == wanted


def test_what_the_user_has_set_for_mlflow_s_page_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def page() -> tuple[bool, str]:
        [_, mlflow, _] = services._plan(services.PORTS)
        api = "http://127.0.0.1:4200/api"
        return "basic-auth" in mlflow.command, services._variables(mlflow, api)[MLFLOW_PASSWORD]

    assert page() == (True, make_login().partition(":")[2])
    monkeypatch.setenv(MLFLOW_PASSWORD, "the user's own")
    assert page() == (True, "the user's own")
    monkeypatch.setenv(MLFLOW_PASSWORD, "")
    assert page() == (False, "")


def test_mlflow_wants_the_login_of_today(home: Path) -> None:
    users = home / "services" / "mlflow-users.db"
    users.write_text("of another password")
    assert mlflow_login("sgpo:new")[MLFLOW_PASSWORD] == "new"
    assert not users.exists()


def test_a_server_of_the_users_own_gets_no_login_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_login()
    write_record(home, "prefect", os.getpid(), psutil.Process().create_time(), login=True)
    ours, other = "http://127.0.0.1:4299/api", "http://orchestration:4200/api"
    for api in (ours, f"{ours}/", ours.replace("127.0.0.1", "localhost"), other):
        monkeypatch.setenv("PREFECT_API_URL", api)
        worker = services._plan(services.PORTS)[-1]
        for variables in (services._variables(worker, api), prepared(home, PREFECT_API_URL=api)):
            assert {name: variables.get(name) for name in (CLIENT, SERVER)} == dict.fromkeys(
                (CLIENT, SERVER), kept_login() if api != other else None
            )
        access.publish(api)
        assert (str(kept_login()) in (home / "services" / "profiles.toml").read_text()) is (api != other)


def test_a_server_that_a_profile_names_gets_no_login_of_ours(home: Path) -> None:
    profile = home / "profiles.toml"
    profile.write_text('active = "own"\n[profiles.own]\nPREFECT_API_URL = "http://orchestration:4200/api"\n')
    variables = prepared(home, PREFECT_PROFILES_PATH=str(profile))
    assert CLIENT not in variables and SERVER not in variables
    anew = [prepared(home, PREFECT_API_URL="") for _ in range(2)]  # an empty address is none
    assert anew[0][CLIENT] == anew[0][SERVER] != anew[1][CLIENT]


def prepared(home: Path, **more: str) -> dict[str, str]:
    """The environment of a process of these variables after `prepare_process`."""
    code = (
        "import json, os\nfrom tasks.services.environment import prepare_process\nprepare_process()\n"
        "print(json.dumps(dict(os.environ)))"
    )
    shell, command = shell_environment(home, **more), [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=shell, capture_output=True, text=True, check=True)
    variables: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return variables


ASK_IN_A_FLOW = """
import json, os, subprocess, sys
from tasks.services.environment import prepare_process
prepare_process()
from prefect import flow, get_client

@flow
def asking():
    with get_client(sync_client=True) as client:
        found, api = len(client.read_flows()), str(client.api_url).rstrip("/")
    if "PREFECT_API_URL" in os.environ:  # a child's
        return print(found)
    child = subprocess.run([sys.executable, *sys.orig_argv[1:]], env=os.environ | {"PREFECT_API_URL": api},
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    print(json.dumps([api, os.environ["PREFECT_API_AUTH_STRING"], child.stdout.decode()]), flush=True)
    sys.stdin.readline()

asking()
"""


@pytest.mark.parametrize("chosen", [None, ""])
def test_a_flow_s_own_server_answers_that_flow_and_its_children_alone(home: Path, chosen: str | None) -> None:
    """The server that Prefect starts for a flow from the shell, where there is none of `make up`."""
    shell, log = shell_environment(home) | ({} if chosen is None else {CLIENT: chosen}), home / "log"
    with log.open("w") as said:
        running = subprocess.Popen(
            [sys.executable, "-c", ASK_IN_A_FLOW],
            cwd=REPOSITORY, env=shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        )  # fmt: skip
    try:
        assert running.stdout
        line = running.stdout.readline()
        assert line, log.read_text()
        api, login, child = json.loads(line)
        assert child.strip() == "1", "the flow that the child finds there"
        assert login == chosen if chosen == "" else login.startswith("sgpo:")
        assert status(f"{api}/health") == 200
        asked = [status(f"{api}/admin/settings", one) for one in (None, f"{login}x", login or None)]
        heard = [greeting(api, one) == "auth_success" for one in (None, f"{login}x", login)]
        assert (asked, heard) == (([200] * 3, [True] * 3) if chosen == "" else ([401, 401, 200], [False, False, True]))
        assert chosen == "" or places_of(login.partition(":")[2], home) == []
    finally:
        running.communicate("\n", timeout=120)
    assert running.returncode == 0, log.read_text()


def test_a_prefect_toml_of_the_user_stays(home: Path) -> None:
    access.POINTER.write_text("[api]\n")
    access.publish("http://127.0.0.1:4299/api")
    services.main(["down"])
    assert access.POINTER.read_text() == "[api]\n"


def test_the_prefect_command_finds_the_server_until_it_goes_down(home: Path) -> None:
    access.publish("http://127.0.0.1:4299/api")
    code = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "SGPO"))}
    printed = subprocess.run([sys.executable, "-c", code], cwd=home, env=shell, capture_output=True, check=True).stdout
    assert printed.decode().strip() == "http://127.0.0.1:4299/api"
    services.main(["down"])
    assert not access.POINTER.exists()


def test_an_option_is_written_as_it_is_given_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert option("fresh") == "--fresh"
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "a process that Prefect's worker has started")
    assert option("fresh") == "fresh=true"


def test_prefect_does_not_report_how_it_is_used(tmp_path: Path) -> None:
    """Imported at a terminal without DO_NOT_TRACK, it says that it will, and leaves an id in the user's home."""
    user = tmp_path / "user"
    user.mkdir()
    ours, terminal = pty.openpty()
    shell = {key: value for key, value in os.environ.items() if key not in ("CI", *USER_VARIABLES)} | {
        "HOME": str(user)
    }
    code = "from tasks.services.environment import prepare_process; prepare_process()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=shell, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 0 and not list(user.rglob("*telemetry*"))


def test_importing_is_light() -> None:
    code = "import sys, tasks.services; print([m for m in ('prefect', 'mlflow', 'torch', 'ray') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True).stdout
    assert printed.decode().strip() == "[]"
