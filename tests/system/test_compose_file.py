"""docker-compose.yml, Dockerfile and .env.demo against the code, without a Docker engine.

What an engine would find out is proven in tests/compose; here: that what the files name exists.
"""

import importlib.util
import itertools
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml

from sandbox.config import SandboxConfig, from_words
from sandbox.parts import Sandbox
from worker.cli import main
from worker.embedded.postgres_server import OPTIONS
from worker.embedded.redis_server import REDIS_MAXMEMORY
from worker.inbox import LIVE_QUEUE, QUEUES
from worker.tasks import SHUTDOWN_SECONDS

ROOT = Path(__file__).parents[2]
OURS = (
    "migrate",
    "receiver",
    "worker-live",
    "worker-backfill",
    "worker-upkeep",
    "beat",
    "metrics",
    "sandbox",
)
SERVERS = ("redis", "postgres")
WATCHERS = ("prometheus", "grafana")
WATCHED_PORTS = {"metrics": 9464, "prometheus": 9090, "grafana": 3000}
EVERY = (*SERVERS, *OURS, *WATCHERS)
WORKERS = ("worker-live", "worker-backfill", "worker-upkeep")

VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Z_]+)(?:(?P<how>:-|:\?)(?P<rest>[^}]*))?\}")
SETTING = re.compile(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"')


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def filled_in(text: str) -> str:
    """The text as compose reads it with a .env that holds only what is required."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return found["rest"] if found["how"] == ":-" else found["name"].lower()

    return VARIABLE.sub(value, text)


@cache
def compose() -> dict[str, Any]:
    return yaml.safe_load(filled_in(text_of("docker-compose.yml")))


def service(name: str) -> dict[str, Any]:
    return compose()["services"][name]


def variables(name: str) -> dict[str, Any]:
    return service(name).get("environment", {})


def settings_of(part: str) -> set[str]:
    """The variables that a settings.py reads."""
    return set(SETTING.findall(text_of(f"{part}/settings.py")))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = [line for line in text_of("Dockerfile").splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def values_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def demo() -> dict[str, str]:
    lines = text_of(".env.demo").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def parse(command: click.Command, words: list[str]) -> None:
    """Let click read a command line to its end without running it; raises click.UsageError."""
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found, words
        parse(found, words[1:])
    else:
        command.make_context("leadsync", list(words))


def test_the_services_are_those_that_the_documentation_names() -> None:
    """The stack has exactly the services that users are told about."""
    assert set(compose()["services"]) == set(EVERY)
    assert all(f"`{name}`" in text_of("docs/production.md") for name in EVERY)


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    """A service starts, and its health check asks, by a command line that our code accepts."""
    lines = [service(name)["command"]]
    if "healthcheck" in service(name):
        kind, *line = service(name)["healthcheck"]["test"]
        assert kind == "CMD"
        lines.append(line)
    for program, *words in lines:
        if program == "leadsync":
            parse(main, words)
        elif words[0] == "-m":
            assert importlib.util.find_spec(words[1])
        else:
            assert program == "python"
            compile(words[1], "healthcheck", "exec")


def test_the_sandbox_accepts_its_settings() -> None:
    """The words that the sandbox is started with are settings of it, and point it at the receiver."""
    config = from_words(service("sandbox")["command"][2:])
    assert urlsplit(config.webhook_url).hostname == "receiver"
    assert urlsplit(config.webhook_url).port == int(variables("receiver")["RECEIVER_PORT"])


@pytest.mark.parametrize("name", WORKERS)
def test_workers_get_every_setting_that_they_read(name: str) -> None:
    """A setting in .env that worker/settings.py reads reaches the workers, and they get no other."""
    # Not theirs: the port that `up` looks at, and what the commands `export-csv` and `connect` read.
    others = {
        "RECEIVER_PORT",
        "METRICS_PORT",
        "EXPORT_URL",
        "EXPORT_COOKIE",
        "EXPORT_TOKEN",
        "META_USER_TOKEN",
    }
    assert set(variables(name)) == settings_of("worker") - others


def test_the_receiver_gets_every_setting_that_it_reads_and_nothing_of_postgres() -> None:
    """A setting in .env that receiver/settings.py reads reaches the receiver; no token and no database does."""
    assert set(variables("receiver")) == settings_of("receiver")


@pytest.mark.parametrize("name", ["beat", "metrics", "migrate"])
def test_the_small_services_get_settings_that_exist_and_no_token(name: str) -> None:
    """The schedule and the migration are told what they need and no secret of Meta's."""
    assert set(variables(name)) <= settings_of("worker") - {"META_APP_SECRET", "PAGE_TOKENS"}


def test_every_variable_that_the_file_asks_for_is_explained() -> None:
    """Each variable of docker-compose.yml is in .env.example or in the production documentation."""
    told = text_of("docs/production.md") + text_of(".env.example")
    asked = {found["name"] for found in VARIABLE.finditer(text_of("docker-compose.yml")) if found["name"]}
    assert {name for name in asked if not re.search(rf"\b{name}\b", told)} == set()


def test_no_secret_has_a_default() -> None:
    """Secrets and passwords must be given; compose refuses to start without them."""
    for found in VARIABLE.finditer(text_of("docker-compose.yml")):
        if found["name"] and re.search("PASSWORD|SECRET|VERIFY", found["name"]):
            assert found["how"] == ":?", found[0]


def test_addresses_between_services_agree() -> None:
    """Every URL in the files names a service and the port on which that service listens."""
    ports = {"redis": 6379, "postgres": 5432, "receiver": 8000, "sandbox": 9900, "127.0.0.1": None}
    assert int(variables("receiver")["RECEIVER_PORT"]) == ports["receiver"]
    assert from_words(service("sandbox")["command"][2:]).port == ports["sandbox"]
    text = filled_in(text_of("docker-compose.yml")) + "".join(demo().values())
    for url in re.findall(r"\b(?:http|redis|postgresql)://[^\s\"'/]+", text):
        parts = urlsplit(url)
        assert parts.hostname in ports
        assert parts.port in (ports[parts.hostname], 8000, 9900, *WATCHED_PORTS.values()), url
    for name, port in (("receiver", 8000), ("sandbox", 9900)):
        assert f"127.0.0.1:{port}/" in service(name)["healthcheck"]["test"][-1]


def test_health_checks_ask_for_paths_that_are_served() -> None:
    """The paths in the health checks are routes of the receiver and of the sandbox."""
    assert '"/readyz"' in text_of("receiver/app.py")
    assert "/readyz" in service("receiver")["healthcheck"]["test"][-1]
    assert '"/sandbox/health"' in text_of("sandbox/control.py")
    assert "/sandbox/health" in service("sandbox")["healthcheck"]["test"][-1]


def test_what_is_published_is_on_loopback_unless_told() -> None:
    """The receiver listens on this machine alone by default, and who watches never elsewhere."""
    assert {name for name in EVERY if "ports" in service(name)} == {"receiver", *WATCHED_PORTS}
    assert service("receiver")["ports"] == ["127.0.0.1:8000:8000"]
    for name, port in WATCHED_PORTS.items():
        assert service(name)["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_who_watches_is_not_on_the_network_of_the_data() -> None:
    """Prometheus and Grafana reach the exporter and nothing else of the stack."""
    assert service("prometheus")["networks"] == service("grafana")["networks"] == ["observe"]
    assert service("metrics")["networks"] == ["data", "observe"]


def test_prometheus_and_grafana_find_what_they_watch() -> None:
    """Targets, rules, data source and dashboards name services, ports and files that exist."""
    scrape = yaml.safe_load(text_of("deploy/prometheus/prometheus.yml"))
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"metrics:{service('metrics')['command'][-1]}"
    assert (ROOT / "deploy/prometheus" / scrape["rule_files"][0]).exists()
    grafana = ROOT / "deploy/grafana"
    sources = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((grafana / "provisioning/dashboards/leadsync.yml").read_text())["providers"][0]
    mounted = {
        inside: ROOT / outside
        for name in WATCHERS
        for outside, inside in (each.split(":")[:2] for each in service(name)["volumes"] if each[0] == ".")
    }
    assert all(path.is_dir() for path in mounted.values())
    home = variables("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert (mounted[provider["options"]["path"]] / Path(home).name).exists()


def test_nobody_logs_in_to_grafana() -> None:
    """There is no account and no password of ours; whoever is on this machine may look."""
    told = variables("grafana")
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert told["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == told["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert told["GF_AUTH_BASIC_ENABLED"] == "false"


def test_the_data_services_have_no_way_out() -> None:
    """Redis and Postgres are on the internal network alone, and who has no business outside is too."""
    assert compose()["networks"]["data"] == {"internal": True}
    for name in (*SERVERS, "migrate", "beat"):
        assert service(name)["networks"] == ["data"]
    assert "data" not in service("sandbox")["networks"]


def test_every_queue_has_a_worker_and_live_work_has_its_own() -> None:
    """Each queue of the code is worked on by one service, and the live one shares its worker with none."""
    worked_on: list[str] = []
    for name in WORKERS:
        words = service(name)["command"]
        queues = [value for option, value in itertools.pairwise(words) if option == "--queue"]
        assert LIVE_QUEUE not in queues or queues == [LIVE_QUEUE]
        worked_on += queues
    assert sorted(worked_on) == sorted(QUEUES)
    assert "--queue" in service("worker-live")["command"]


@pytest.mark.parametrize("name", EVERY)
def test_every_service_is_hardened(name: str) -> None:
    """No service is root, writes to its root, keeps a capability, or may gain one; none fills disk or memory."""
    about = service(name)
    assert about["read_only"] is True
    assert about["init"] is True
    assert about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in about
    assert "pids_limit" in about
    assert {"max-size", "max-file"} == set(about["logging"]["options"])
    assert about.get("user", values_of("USER")[-1]) not in ("root", "0")
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(about)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "migrate"])
def test_every_lasting_service_is_watched_and_comes_back(name: str) -> None:
    """What runs for long has a health check, restarts by itself, and has time to end in order."""
    assert service(name)["restart"] == "unless-stopped"
    assert service(name)["healthcheck"]["test"]
    assert int(service(name)["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS


def test_the_migration_runs_once_and_workers_wait_for_it() -> None:
    """Workers start after the schema is there; the migration is not started again."""
    assert service("migrate")["restart"] == "no"
    for name in WORKERS:
        assert service(name)["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_receiver_waits_for_redis_alone() -> None:
    """The receiver takes deliveries while Postgres is away."""
    assert set(service("receiver")["depends_on"]) == {"redis"}


def test_redis_keeps_what_it_acknowledged() -> None:
    """Redis answers a write after its fsync, never evicts, and its password is in no list of processes."""
    script = service("redis")["command"][-1]
    told = shlex.split(script.split("<<")[0].replace("\\\n", " "))
    options = dict(itertools.pairwise(told))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--save"] == ""
    assert options["--maxmemory-policy"] == "noeviction"
    assert variables("redis")["REDIS_MAXMEMORY"] == REDIS_MAXMEMORY
    assert "requirepass $REDISCLI_AUTH" in script
    assert not any("AUTH" in word for word in told)


def test_postgres_writes_no_answer_into_its_log() -> None:
    """The log options are those of the embedded Postgres, of which a test shows that its log quotes nobody."""
    words = service("postgres")["command"]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = {name: value for name, value in OPTIONS.items() if name.startswith("log_")}
    del wanted["log_timezone"]
    assert wanted.items() <= given.items()


def test_the_image_is_of_this_version() -> None:
    """A new version builds a new image, and does not run the one of yesterday."""
    version = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)
    assert version
    assert {service(name)["image"] for name in OURS} == {f"leadsync:{version[1]}"}


def test_the_image_is_built_once_and_looked_for_nowhere_else() -> None:
    """One service builds what all of ours run; nobody asks a registry for a name that is only ours."""
    assert [name for name in EVERY if "build" in service(name)] == ["migrate"]
    assert {service(name).get("pull_policy") for name in OURS if name != "migrate"} == {"never"}


def test_foreign_images_are_variables_with_a_version() -> None:
    """Each base image can be replaced, and names a version by default."""
    text = text_of("docker-compose.yml") + text_of("Dockerfile")
    for name in ("PYTHON_IMAGE", "REDIS_IMAGE", "POSTGRES_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"):
        assert re.search(rf"{name}(:-|=)[a-z/]+:v?\d[\w.-]*", text), name
    assert f"${{PYTHON_IMAGE:-{values_of('ARG')[0].split('=')[1]}}}" in text


def test_the_image_is_built_from_hashes_and_runs_as_nobody_in_particular() -> None:
    """Every package is checked against the lock, no index is named, and the user is a number other than root's."""
    runs = " ".join(values_of("RUN"))
    for install in re.findall(r"pip[^&]* install [^&]*", runs):
        assert "--require-hashes" in install or "--no-index" in install
    assert not re.search(r"https?://|index-url|--trusted-host", text_of("Dockerfile"))
    uid = values_of("USER")[-1].split(":")[0]
    assert uid.isdigit()
    assert int(uid) > 0
    assert [line for line in values_of("FROM") if " AS " not in line] == ["${PYTHON_IMAGE}"]


def test_the_image_copies_what_exists_and_what_the_context_lets_through() -> None:
    """Each COPY names a path of the project that .dockerignore lets through; nothing else goes into a build."""
    sources = [path for line in values_of("COPY") if "--from" not in line for path in line.split()[:-1]]
    ignored = text_of(".dockerignore").splitlines()
    assert next(line for line in ignored if line and line[0] not in "#!") == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(sources)
    assert all((ROOT / path).exists() for path in sources)
    assert "**/.env*" in ignored


def test_the_demo_knows_the_tokens_of_the_sandbox(monkeypatch, tmp_path) -> None:
    """.env.demo holds the token of every Page that the stack's sandbox makes, and reads as settings."""
    from worker.settings import read_settings

    config = from_words(service("sandbox")["command"][2:])
    assert config.seed == SandboxConfig().seed
    for name, value in demo().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    settings = read_settings("META_APP_SECRET")
    assert dict(settings.page_tokens) == Sandbox(config, 0.0).tokens.of_page
    assert urlsplit(settings.graph_url).netloc == f"sandbox:{config.port}"


def test_the_demo_is_a_project_of_its_own() -> None:
    """Trying it out never touches the volumes, or the port, of a real stack on the same machine."""
    assert demo()["COMPOSE_PROJECT_NAME"] != compose()["name"]
    assert f"127.0.0.1:{demo()['RECEIVER_PORT']}:8000" not in service("receiver")["ports"]
    assert demo()["COMPOSE_PROFILES"] == "demo"
    assert service("sandbox")["profiles"] == ["demo"]
    assert {name for name in EVERY if "profiles" in service(name)} == {"sandbox", *WATCHERS}
    assert all(service(name)["profiles"] == ["observe"] for name in WATCHERS)
    published = {name: demo()[f"{name.upper()}_PORT"] for name in WATCHED_PORTS}
    assert not {str(port) for port in WATCHED_PORTS.values()} & set(published.values())
