"""From an empty folder to a lead in the table, as a new user goes: `up`, `connect`, one lead, against a sandbox."""

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers import short_folder
from worker.demo import get_json, post_json
from worker.sealing import Keys, Sealed, of_account, of_page

ROOT = Path(__file__).parents[2]
STANDS_STILL_SECONDS = 0.5
APP_ID, APP_SECRET, VERIFY_TOKEN = "1234567890123456", "app_secret_of_connect", "verify_token_of_connect"
OURS = (
    "META_",
    "DATABASE_URL",
    "REDIS_URL",
    "TOKEN_KEYS",
    "PAGE_TOKENS",
    "GRAPH_",
    "RECEIVER_",
    "WEBHOOK_URL",
)


@dataclass
class User:
    """Somebody with a folder, a sandbox for Meta, and a running `leadsync up`."""

    folder: Path
    sandbox_url: str
    webhook_url: str
    env: dict[str, str]

    def leadsync(self, *words: str, token: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `token` is its standard input."""
        return subprocess.run(
            [sys.executable, "-m", "worker", *words],
            cwd=self.folder, env={**self.env, **env}, input=token, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def order(self, path: str, **order: object) -> Any:
        """Give the sandbox an order."""
        return post_json(f"{self.sandbox_url}/sandbox/{path}", order)

    def look(self, path: str) -> Any:
        """Ask the sandbox."""
        return get_json(f"{self.sandbox_url}/sandbox/{path}")

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        url = json.loads((self.folder / ".leadsync" / "urls.json").read_text())["DATABASE_URL"]
        with psycopg.connect(url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def wait(self, reached: Callable[[], bool], seconds: float = 60) -> bool:
        """Whether `reached` comes true in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if reached():
                return True
            time.sleep(0.2)
        return False


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """The user; `up` and sandbox are ended with the module."""
    with short_folder() as folder:
        sandbox_port, receiver_port = _free_ports()
        sandbox_url, webhook_url = (
            f"http://127.0.0.1:{sandbox_port}",
            f"http://127.0.0.1:{receiver_port}/webhook",
        )
        settings = {
            "META_APP_ID": APP_ID,
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": sandbox_url,
            "RECEIVER_PORT": str(receiver_port),
            "HEALTH_RESUBSCRIBE": "false",  # else the check of health may be the one that mends
            "METRICS_PORT": "0",
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        words = (
            f"port={sandbox_port}", f"app_id={APP_ID}", f"app_secret={APP_SECRET}", f"verify_token={VERIFY_TOKEN}",
            "subscriptions=true", "require_proof=true", "leads=12", "default_limit=2",
        )  # fmt: skip
        with (folder / "log").open("w") as log:
            started = [
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    cwd=folder,
                    env=env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                for command in (("sandbox", *words), ("worker", "up"))
            ]
            try:
                user = User(folder, sandbox_url, webhook_url, env)
                assert user.wait(lambda: "leadsync is up" in (folder / "log").read_text(), 120), (
                    "up is not up"
                )
                assert user.wait(lambda: _answers(f"{sandbox_url}/sandbox/health")), "no sandbox"
                yield user
            finally:
                for process in started:
                    process.send_signal(signal.SIGINT)
                for process in started:
                    process.wait(40)


@pytest.fixture(scope="module")
def connected(user: User) -> User:
    """The user with all Pages connected: by the first test where it ran, here where another runs alone."""
    if not user.look("subscriptions")["pages"]:
        token = user.order("tokens", fresh="short")["user_token"]
        words = ("--all", "--no-backfill", "--webhook-url", user.webhook_url)
        told = user.leadsync("connect", "--token-stdin", *words, token=token)
        assert told.returncode == 0, told.stdout + told.stderr
    return user


def test_from_nothing_to_a_lead_in_the_table(user: User) -> None:
    """One command with a short-lived token: Pages subscribed, handshake made, and the next lead arrives as a row."""
    began = time.monotonic()
    token = user.order("tokens", fresh="short")["user_token"]
    told = user.leadsync(
        "connect", "--token-stdin", "--all", "--webhook-url", user.webhook_url, "--json", token=token
    )
    assert told.returncode == 0, told.stdout + told.stderr
    done = json.loads(told.stdout)
    page_ids = [page["page_id"] for page in done["pages"]]
    assert len(page_ids) == 3
    assert all(page["is_connected"] and len(page["forms"]) == 2 for page in done["pages"])
    exchanged = next(step for step in done["steps"] if step["what"] == "exchange")
    assert exchanged["state"] == "done"
    at_meta = user.look("subscriptions")
    assert at_meta["pages"] == {page_id: ["leadgen"] for page_id in page_ids}
    assert (at_meta["app"]["callback_url"], at_meta["app"]["include_values"]) == (user.webhook_url, True)
    user.order("send", count=3, batch=1)
    arrived = "select count(*) from leads where source = 'webhook'"
    assert user.wait(lambda: user.rows(arrived) == [(3,)]), user.rows("select * from waiting")
    assert time.monotonic() - began < 120


def test_the_database_holds_tokens_only_sealed(connected: User) -> None:
    """Neither the account's token nor a Page's lies open, and the key of this machine opens them."""
    dump = str(
        connected.rows("select a.*, t.* from accounts a, page_tokens t")
        + connected.rows("select * from pages")
    )
    tokens = connected.look("tokens")
    secrets = [*tokens.values(), APP_SECRET]
    assert secrets
    assert not [secret for secret in secrets if secret in dump]
    ring = Keys((), connected.folder / ".leadsync" / "token.keys").ring()
    for page_id, key_id, box in connected.rows("select page_id, key_id, sealed from page_tokens"):
        assert ring.open(Sealed(key_id, bytes(box)), of_page(page_id)).startswith("EAAG")
    ((user_id, key_id, box),) = connected.rows("select user_id, key_id, sealed from accounts")
    assert ring.open(Sealed(key_id, bytes(box)), of_account(user_id)).startswith("EAAU")


def test_a_second_run_changes_nothing_and_says_so(connected: User) -> None:
    """Without a token the kept one serves; rows and subscriptions stay what they were."""
    before = connected.rows("select * from accounts"), connected.rows("select * from page_tokens")
    at_meta = connected.look("subscriptions")
    told = connected.leadsync("connect", "--all", "--webhook-url", connected.webhook_url, "--no-backfill")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "nothing was changed" in told.stdout
    assert (connected.rows("select * from accounts"), connected.rows("select * from page_tokens")) == before
    assert connected.look("subscriptions") == at_meta


def test_a_lost_subscription_is_made_again_alone(connected: User) -> None:
    """The step `subscribe` mends one Page without asking for any token."""
    page_id = next(iter(connected.look("subscriptions")["pages"]))
    connected.order("subscriptions", drop_pages=[page_id])
    told = connected.leadsync("connect", "--only", "subscribe", "--page", page_id, "--json")
    assert (told.returncode, json.loads(told.stdout)["steps"][0]["state"]) == (0, "done")
    assert connected.look("subscriptions")["pages"][page_id] == ["leadgen"]


def test_a_receiver_that_is_not_there_is_explained(connected: User) -> None:
    """A handshake that fails names both causes, and the webhook stays what it was."""
    told = connected.leadsync(
        "connect", "--only", "webhook", "--webhook-url", connected.webhook_url + "/elsewhere"
    )
    assert told.returncode == 1
    assert "2200" in told.stdout
    assert "META_VERIFY_TOKEN" in told.stdout
    assert connected.look("subscriptions")["app"]["callback_url"] == connected.webhook_url


def test_without_a_terminal_and_a_choice_the_pages_are_named(connected: User) -> None:
    """Nothing is guessed; what can be chosen stands in the error."""
    told = connected.leadsync("connect")
    assert told.returncode == 2
    assert all(page_id in told.stderr for page_id in connected.look("subscriptions")["pages"])


def test_on_a_terminal_it_asks_for_everything_and_shows_no_token(connected: User) -> None:
    """The token is not echoed; Pages are chosen by number; the backfill is offered and begun."""
    token = connected.look("pages")["user_token"]
    shown, status = _at_a_terminal(
        connected, ("connect",), [("Token", f"{token}\n"), ("Which Pages", "2\n"), ("Bring the leads", "y\n")]
    )
    assert status == 0, shown
    assert token not in shown
    assert "has begun" in shown
    ((page_id,),) = connected.rows(
        "select page_id from backfills where purpose = 'backfill' and edge = 'page'"
    )
    assert f"Page {page_id}" in shown


def test_ctrl_c_at_a_question_ends_it_at_once(connected: User) -> None:
    """One press is enough, and nothing is printed but that it was ended."""
    shown, status = _at_a_terminal(connected, ("connect",), [("Token", "\n"), ("Which Pages", "\x03")])
    assert (status, "Aborted" in shown, "Traceback" in shown) == (1, True, False), shown


def test_a_disconnected_page_is_left_alone_until_it_is_connected_again(connected: User) -> None:
    """Its subscription and token go, its leads stay; the account's token stays while another Page leans on it."""
    page_id, other, *_ = sorted(connected.look("subscriptions")["pages"])
    stored = set(connected.rows("select leadgen_id from leads"))
    told = connected.leadsync("pages", "disconnect", page_id)
    assert told.returncode == 0, told.stdout + told.stderr
    assert set(connected.look("subscriptions")["pages"]) >= {other}
    assert page_id not in connected.look("subscriptions")["pages"]
    assert connected.rows(f"select parked_reason, connected_at from pages where page_id = '{page_id}'") == [
        ("disconnected", None)
    ]
    assert connected.rows(f"select from page_tokens where page_id = '{page_id}'") == []
    assert connected.rows("select count(*) from accounts") == [(1,)]
    # Those of other Pages may still come in, from the backfill of a test before.
    assert stored <= set(connected.rows("select leadgen_id from leads"))
    again = connected.leadsync("connect", "--page", page_id, "--no-backfill")
    assert (again.returncode, "is taken up again" in again.stdout) == (0, True), again.stdout + again.stderr
    assert connected.rows(f"select parked_reason from pages where page_id = '{page_id}'") == [(None,)]


def test_a_page_with_a_dead_token_is_disconnected_all_the_same(connected: User) -> None:
    """What stays at Meta is told; the former token is replaced when the Page is connected again."""
    page_id = sorted(connected.look("subscriptions")["pages"])[1]
    # The account's token dies too, else whatever runs meets the dead one and derives a new one from it.
    connected.order("tokens", revoke="user", error="190/460")
    told = connected.leadsync("pages", "disconnect", page_id, "--json")
    steps = {step["what"]: step["state"] for step in json.loads(told.stdout)["steps"]}
    assert (told.returncode, steps["subscription"], steps["page"]) == (0, "left", "done")
    token = connected.order("tokens", fresh="long")["user_token"]
    again = connected.leadsync("connect", "--token-stdin", "--all", "--no-backfill", token=token)
    assert again.returncode == 0, again.stdout + again.stderr
    assert connected.wait(
        lambda: connected.rows("select page_id from pages where parked_reason is not null") == []
    )


def _at_a_terminal(user: User, words: tuple[str, ...], answers: list[tuple[str, str]]) -> tuple[str, int]:
    """Run a command at a terminal and answer its questions; what was shown, and the exit status.

    A person types when the screen stands still: a question is there before it is listened for, and Ctrl-C in between is
    seen only at the next key. A token is typed once it is not echoed: what was typed before is thrown away with the
    change.
    """
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *words],
        cwd=user.folder, env={**user.env, "TERM": "xterm"}, stdin=follower, stdout=follower, stderr=follower,
        start_new_session=True, preexec_fn=lambda: _own_terminal(follower),
    )  # fmt: skip
    os.close(follower)
    shown, deadline = "", time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            moves = select.select([leader], [], [], STANDS_STILL_SECONDS)[0]
            if moves:
                try:
                    part = os.read(leader, 65_536).decode(errors="replace")
                except OSError:
                    part = ""
                if not part:
                    return shown, process.wait(30)
                shown += part
            asked = not moves and answers and answers[0][0] in shown
            if asked and (answers[0][0] != "Token" or not _echoes(leader)):
                os.write(leader, answers.pop(0)[1].encode())
        pytest.fail(f"it waits for something: {shown}")
    finally:
        process.kill()
        os.close(leader)


def _echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def _own_terminal(follower: int) -> None:
    """Make it the process' controlling terminal, at which it asks for the token."""
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_ports() -> tuple[int, int]:
    with closing(socket.socket()) as one, closing(socket.socket()) as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
