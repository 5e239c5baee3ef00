"""The sandbox over HTTP: Graph's routes, faults on the wire, the control routes."""

import csv
import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests

from tests.fakes.sandboxes import Served, serving, token_of


@pytest.fixture
def served() -> Iterator[Served]:
    """A sandbox with a few leads."""
    with serving(leads=60, pages=2) as served:
        yield served


def bearer(served: Served, page: int = 0) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(served.sandbox, page)}"}


def a_lead(served: Served) -> str:
    world = served.sandbox.world
    return next(
        lead.leadgen_id for lead in map(world.lead, range(60)) if lead.page_id == world.pages[0].page_id
    )


def control(served: Served, method: str, path: str, body: object = None) -> Any:
    response = requests.request(
        method, f"{served.url}/sandbox/{path}", data=None if body is None else json.dumps(body), timeout=10
    )
    assert response.status_code < 300, response.text
    return response.json()


def test_parameters_are_read_from_a_body_even_on_get(served: Served) -> None:
    """The guide's `curl -X GET -d` works: form body, trailing slash, no version header needed."""
    url = urlsplit(served.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    body = urlencode({"access_token": token_of(served.sandbox), "fields": "platform"})
    connection.request(
        "GET", f"/v21.0/{a_lead(served)}/", body, {"Content-Type": "application/x-www-form-urlencoded"}
    )
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["facebook-api-version"] == "v21.0"
    assert set(json.loads(response.read())) == {"platform", "id"}
    connection.close()


@pytest.mark.parametrize("how", ["form", "json", "multipart"])
def test_a_batch_comes_in_any_body(served: Served, how: str) -> None:
    """Form, JSON and multipart bodies carry the same batch; the token may stand in the header."""
    batch = [{"method": "GET", "relative_url": a_lead(served)}]
    sent: dict[str, Any] = {
        "form": {"data": {"batch": json.dumps(batch)}},
        "json": {"json": {"batch": batch}},
        "multipart": {"files": {"batch": (None, json.dumps(batch))}},
    }[how]
    response = requests.post(f"{served.url}/v26.0", headers=bearer(served), timeout=10, **sent)
    assert [item["code"] for item in response.json()] == [200]


def test_an_answer_leaves_in_one_write(served: Served) -> None:
    """Head and body arrive together, so that no client waits for a delayed acknowledgement."""
    url = urlsplit(served.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as link:
        request = f"GET /v26.0/{a_lead(served)} HTTP/1.1\r\nHost: x\r\n"
        request += f"Authorization: {bearer(served)['Authorization']}\r\n\r\n"
        link.sendall(request.encode())
        first = link.recv(65_536)
    head, _, body = first.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    json.loads(body)


@pytest.mark.parametrize("name", ["5xx", "html_5xx", "html_200", "not_json", "truncated", "ok_with_error"])
def test_spoiled_answers_are_whole_http(served: Served, name: str) -> None:
    """Spoiled bodies come in answers that HTTP itself finds nothing wrong with."""
    control(served, "POST", "faults", {"class": name})
    response = requests.get(f"{served.url}/{a_lead(served)}", headers=bearer(served), timeout=10)
    assert len(response.content) == int(response.headers["Content-Length"])


def test_a_held_answer_times_out(served: Served) -> None:
    """timeout holds the answer longer than the caller waits, and the call was counted."""
    control(served, "POST", "faults", {"class": "timeout", "hold_seconds": 30})
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{served.url}/{a_lead(served)}", headers=bearer(served), timeout=0.3)
    assert control(served, "GET", "calls")["results"] == {"timeout": 1}


@pytest.mark.parametrize("name", ["reset", "close", "cut_body"])
def test_broken_connections_break(served: Served, name: str) -> None:
    """The caller sees an error of the connection, not an answer."""
    control(served, "POST", "faults", {"class": name, "count": 1})
    url = f"{served.url}/{a_lead(served)}"
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        requests.get(url, headers=bearer(served), timeout=10)
    assert requests.get(url, headers=bearer(served), timeout=10).status_code == 200


def test_a_slow_body_drips(served: Served) -> None:
    """slow_body sends the head at once and the body at the speed asked."""
    control(served, "POST", "faults", {"class": "slow_body", "bytes_per_second": 20})
    response = requests.get(f"{served.url}/{a_lead(served)}", headers=bearer(served), timeout=10, stream=True)
    assert len(next(response.iter_content(2))) == 2
    response.close()


def test_a_huge_body_is_as_huge_as_told(served: Served) -> None:
    """huge_body announces and sends the size asked for, as JSON."""
    control(served, "POST", "faults", {"class": "huge_body", "size": 3_000_000})
    response = requests.get(f"{served.url}/{a_lead(served)}", headers=bearer(served), timeout=10)
    assert len(response.content) == 3_000_000
    assert set(response.json()) == {"id"}


def test_a_followed_redirect_is_noticed(served: Served) -> None:
    """redirect points back at the sandbox, which counts who follows."""
    control(served, "POST", "faults", {"class": "redirect"})
    url = f"{served.url}/{a_lead(served)}"
    answer = requests.get(url, headers=bearer(served), timeout=10, allow_redirects=False)
    assert answer.status_code == 302
    assert control(served, "GET", "calls")["redirects_followed"] == 0
    requests.get(url, headers=bearer(served), timeout=10)
    assert control(served, "GET", "calls")["redirects_followed"] == 1


def test_created_leads_are_in_the_truth_and_can_be_read(served: Served) -> None:
    """Ids from POST /sandbox/leads are read at once and equal the truth to the field."""
    page = control(served, "GET", "pages")["pages"][0]
    ids = control(served, "POST", "leads", {"count": 5, "page": page["page_id"]})["leads"]
    text = requests.get(f"{served.url}/sandbox/truth?origin=created", timeout=10).text
    truth = {lead["id"]: lead for lead in map(json.loads, text.splitlines())}
    assert list(truth) == ids
    for leadgen_id in ids:
        fields = ",".join(name for name in truth[leadgen_id] if name != "page_id")
        shown = requests.get(
            f"{served.url}/v26.0/{leadgen_id}",
            {"fields": fields},
            headers={"Authorization": f"Bearer {page['token']}"},
            timeout=10,
        ).json()
        assert {**shown, "page_id": page["page_id"]} == truth[leadgen_id]
    record = control(served, "GET", f"leads/{ids[0]}")
    assert record["reads"] == 1
    assert record["created_at"] <= record["first_read_at"]


def test_a_form_that_appears_is_told_to_everyone(served: Served) -> None:
    """POST /sandbox/forms makes and archives forms; the list of Pages and Graph tell it at once."""
    page = control(served, "GET", "pages")["pages"][1]
    made = control(served, "POST", "forms", {"page": page["page_id"], "copy_of": page["forms"][0]["form_id"]})
    archived = control(served, "POST", "forms", {"form": made["form_id"], "status": "ARCHIVED"})
    assert (made["status"], archived["status"]) == ("ACTIVE", "ARCHIVED")
    assert control(served, "GET", "pages")["pages"][1]["forms"][-1]["form_id"] == made["form_id"]
    told = requests.get(
        f"{served.url}/{page['page_id']}/leadgen_forms", headers=bearer(served, 1), timeout=10
    )
    assert [form["status"] for form in told.json()["data"]] == ["ACTIVE", "ACTIVE", "ARCHIVED"]


EXPORT = "/ads/lead_gen/export_csv/"


def test_the_export_file_is_for_those_logged_in(served: Served) -> None:
    """A token of the form's Page, the user's or a browser's session open it; others are led to the login page."""
    form = served.sandbox.world.pages[0].forms[0]
    url, query = f"{served.url}{EXPORT}", {"id": form.form_id, "type": "form"}
    session = {"session": served.sandbox.tokens.of_user}
    ways: list[dict[str, Any]] = [
        {"headers": bearer(served)},
        {"params": {**query, "access_token": token_of(served.sandbox)}},
        {"cookies": session},
    ]
    for way in ways:
        answer = requests.get(url, **{"params": query, "timeout": 10, **way})
        assert answer.content.startswith(b"id\tcreated_time\t")
    for way in ({}, {"headers": bearer(served, 1)}, {"cookies": {"session": "x"}}):
        answer = requests.get(url, **{"params": query, "timeout": 10, "allow_redirects": False, **way})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
    assert "<html>" in requests.get(url, query, timeout=10).text
    assert requests.get(url, {"id": "1"}, cookies=session, timeout=10).status_code == 404
    control(served, "POST", "tokens", {"revoke": "user"})
    for way in ways:
        answer = requests.get(url, **{"params": query, "timeout": 10, "allow_redirects": False, **way})
        assert answer.status_code == 302
    assert control(served, "GET", "calls")["calls"] == 0


def test_the_export_file_holds_what_the_form_lists(served: Served) -> None:
    """Every lead that the form lists is a line, oldest first; invisible, expired and deleted ones are none."""
    form = served.sandbox.world.pages[0].forms[0]
    for order in ({}, {"visible_in": 600}, {"age_seconds": 91 * 86_400}, {"age_seconds": 86_400}):
        control(served, "POST", "leads", {"forms": [form.form_id], **order})
    requests.delete(f"{served.url}/{a_lead(served)}", headers=bearer(served), timeout=10)
    listed = requests.get(
        f"{served.url}/{form.form_id}/leads",
        {"limit": "500", "fields": "created_time"},
        headers=bearer(served),
        timeout=10,
    ).json()["data"]
    query = {"id": form.form_id, "type": "form", "from_date": "0", "to_date": "99999999999"}
    answer = requests.get(f"{served.url}{EXPORT}", query, headers=bearer(served), timeout=10)
    lines = list(csv.DictReader(io.StringIO(answer.content.decode(), newline=""), delimiter="\t"))
    assert {line["id"] for line in lines} == {f"l:{lead['id']}" for lead in listed}
    assert len(lines) == len(listed)
    assert [line["created_time"] for line in lines] == sorted(line["created_time"] for line in lines)


def test_tokens_are_a_file_for_the_worker(served: Served) -> None:
    """GET /sandbox/tokens is one JSON object, Page id -> token."""
    assert control(served, "GET", "tokens") == served.sandbox.tokens.of_page


def test_calls_are_told_by_page_kind_and_result(served: Served) -> None:
    """The journal counts what really came in, and can be cleared."""
    for path in (a_lead(served), "1", f"{served.sandbox.world.forms[0].form_id}/leads"):
        requests.get(f"{served.url}/{path}", headers=bearer(served), timeout=10)
    calls = control(served, "GET", "calls")
    page = calls["pages"][served.sandbox.world.pages[0].page_id]
    assert (calls["http_requests"], page["calls"]) == (3, 3)
    assert page["kinds"] == {"lead": 2, "form_leads": 1}
    assert page["results"] == {"200": 2, "100/33": 1}
    assert calls["windows"][served.sandbox.world.pages[0].page_id]["used"] == 3
    assert control(served, "DELETE", "calls") == {"ok": True}
    cleared = control(served, "GET", "calls")
    assert (cleared["calls"], call_log(served)) == (0, [])
    window = cleared["windows"][served.sandbox.world.pages[0].page_id]
    assert (window["used"], window["most"]) == (3, 0)


def call_log(served: Served, **query: str | float) -> list[Any]:
    response = requests.get(f"{served.url}/sandbox/calls/log", query, timeout=10)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_log_of_calls_proves_what_the_windows_held(served: Served) -> None:
    """Each call is a line with its time; what a test adds up from them is what `most` says."""
    page_id = served.sandbox.world.pages[0].page_id
    control(served, "POST", "limits", {"page": page_id, "limit": 3})
    began = time.time()
    items = json.dumps([{"method": "GET", "relative_url": a_lead(served)}] * 2)
    requests.post(f"{served.url}/v26.0", {"batch": items}, headers=bearer(served), timeout=10)
    for page in (0, 0, 1):
        requests.get(f"{served.url}/{a_lead(served)}", headers=bearer(served, page), timeout=10)
    lines = call_log(served, page=page_id, since=began)
    assert [line[1:] for line in lines] == [[1, "lead", "200"]] * 3 + [[1, "lead", "80005"]]
    assert all(began <= line[0] <= time.time() for line in lines)
    assert len(call_log(served)) == 5
    assert call_log(served, page=page_id, since=time.time() + 60) == []
    window = control(served, "GET", "calls")["windows"][page_id]
    assert (window["most"], window["limit"], window["window_seconds"]) == (4, 3, 86_400)
    assert window["blocked_until"] == lines[1][0] + 86_400


def test_several_usage_headers_go_over_the_wire(served: Served) -> None:
    """An ad edge of an app with a limit answers with all three usage headers."""
    control(served, "POST", "limits", {"app_limit": 50})
    ad_id = served.sandbox.world.pages[0].forms[0].ads[0].ad_id
    answer = requests.get(f"{served.url}/{ad_id}/leads", headers=bearer(served), timeout=10)
    assert json.loads(answer.headers["X-App-Usage"])["call_count"] == 2
    assert json.loads(answer.headers["X-Ad-Account-Usage"])["reset_time_duration"] == 0
    assert "ads_management" in answer.headers["X-Business-Use-Case-Usage"]


@pytest.mark.parametrize("query", ["page=1", "since=noon", "since=nan", "pages=1"])
def test_a_log_that_cannot_be_told_is_refused(served: Served, query: str) -> None:
    """An unknown Page, time or parameter is answered with 400 and a sentence."""
    response = requests.get(f"{served.url}/sandbox/calls/log?{query}", timeout=10)
    assert response.status_code == 400
    assert response.json()["error"]


def test_latency_can_be_set_for_one_page(served: Served) -> None:
    """A slow Page is slow alone."""
    page_id = served.sandbox.world.pages[1].page_id
    control(served, "POST", "latency", {"pages": {page_id: 5}})
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{served.url}/me", headers=bearer(served, 1), timeout=0.3)
    assert requests.get(f"{served.url}/me", headers=bearer(served), timeout=3).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("leads", "x"),
        ("leads", "[]"),
        ("leads", '{"no":1}'),
        ("faults", "x"),
        ("send", '{"count":-1}'),
        ("latency", '{"seconds":"x"}'),
    ],
)
def test_a_bad_order_is_answered_with_a_sentence(served: Served, path: str, body: str) -> None:
    """Control routes answer 400 with what is wrong, and the sandbox goes on."""
    response = requests.post(f"{served.url}/sandbox/{path}", data=body, timeout=10)
    assert response.status_code == 400
    assert response.json()["error"]


def test_many_resets_leave_the_sandbox_well(served: Served) -> None:
    """Callers that hang up rudely do no harm."""
    url = urlsplit(served.url)
    control(served, "POST", "latency", {"seconds": 0.05})

    def rude() -> None:
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(b"GET /me HTTP/1.1\r\nHost: x\r\n\r\n")

    threads = [threading.Thread(target=rude) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 10
    while served.sandbox.journal.http_in_flight and time.monotonic() < deadline:
        requests.get(f"{served.url}/sandbox/health", timeout=10)
    assert served.sandbox.journal.http_in_flight == 0


def test_an_app_connects_loses_its_token_and_connects_again(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short-lived token becomes a long-lived one, that gives Page tokens until it is revoked; a new one gives more.

    Nothing of what was done with tokens is written down.
    """
    config = served.sandbox.config
    client = {"client_id": config.app_id, "client_secret": config.app_secret}
    seen: set[str] = set()

    def connect() -> str:
        short = control(served, "POST", "tokens", {"fresh": "short"})["user_token"]
        exchange = {"grant_type": "fb_exchange_token", "fb_exchange_token": short, **client}
        long = graph(served, "oauth/access_token", **exchange)["access_token"]
        [page, _] = graph(served, "v26.0/me/accounts", access_token=long)["data"]
        seen.update((short, long, page["access_token"]))
        assert page["id"] == graph(served, "me", access_token=page["access_token"])["id"]
        return str(page["access_token"])

    def debug(token: str) -> Any:
        headers = {"Authorization": f"Bearer {config.app_token}"}
        response = requests.get(
            f"{served.url}/debug_token", params={"input_token": token}, headers=headers, timeout=10
        )
        return response.json()["data"]

    first = connect()
    assert debug(first)["is_valid"]
    told = control(served, "POST", "tokens", {"revoke": "user", "error": "190/460"})
    assert debug(first)["error"]["subcode"] == 460
    assert control(served, "GET", "tokens") == {}
    second = connect()
    assert (first == second, debug(second)["is_valid"], debug(first)["is_valid"]) == (False, True, False)
    assert control(served, "GET", "tokens")[served.sandbox.world.pages[0].page_id] == second
    kinds = control(served, "GET", "calls")["kinds"]
    assert (kinds["oauth"], kinds["accounts"], kinds["debug_token"]) == (2, 2, 4)
    written = requests.get(f"{served.url}/sandbox/calls/log", timeout=10).text + "".join(capsys.readouterr())
    assert not [token for token in {*seen, told["user_token"], config.app_secret} if token in written]


def graph(served: Served, path: str, **params: str) -> Any:
    response = requests.get(f"{served.url}/{path}", params=params, timeout=10)
    assert response.status_code == 200, response.json()["error"]["code"]
    return response.json()


def test_the_settings_are_told_as_a_dotenv_file(served: Served) -> None:
    """What leadsync needs to take the sandbox for Meta is one GET, address and user token included."""
    answer = requests.get(f"{served.url}/sandbox/env", timeout=10)
    told = dict(line.split("=", 1) for line in answer.text.splitlines())
    assert told["GRAPH_URL"] == served.url
    assert told["META_USER_TOKEN"] == served.sandbox.tokens.of_user
    assert told["META_APP_SECRET"] == served.sandbox.config.app_secret
    assert set(told) == {
        "GRAPH_URL", "META_APP_ID", "META_APP_SECRET", "META_VERIFY_TOKEN", "META_USER_TOKEN", "WEBHOOK_URL",
    }  # fmt: skip
