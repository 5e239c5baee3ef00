"""Single calls: what Graph answers, and to whom."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import IDS_GONE
from sandbox.parts import Sandbox
from sandbox.proofs import proof
from sandbox.world import Lead
from tests.fakes.sandboxes import NOW, asked, batch, code_of, made, read, token_of


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=120)


def lead_of(sandbox: Sandbox, page: int = 0, kind: str = "ad") -> Lead:
    page_id = sandbox.world.pages[page].page_id
    leads = map(sandbox.world.lead, range(len(sandbox.world)))
    return next(lead for lead in leads if lead.page_id == page_id and lead.kind == kind)


def test_without_fields_a_lead_shows_its_default_fields(sandbox: Sandbox) -> None:
    """`fields` left out gives id, created_time and field_data."""
    body = read(asked(sandbox, f"/v26.0/{lead_of(sandbox).leadgen_id}/"))
    assert set(body) == {"id", "created_time", "field_data"}


def test_fields_are_given_in_the_order_asked_and_the_id_always(sandbox: Sandbox) -> None:
    """A caller gets the fields it named, those of nested objects whole, and the id besides."""
    answer = asked(
        sandbox, f"/{lead_of(sandbox).leadgen_id}", {"fields": "platform,field_data{name,values},form_id"}
    )
    assert list(read(answer)) == ["platform", "field_data", "form_id", "id"]


def test_an_unknown_field_is_refused(sandbox: Sandbox) -> None:
    """A field that leads do not have is code 100 and names the field."""
    answer = asked(sandbox, f"/{lead_of(sandbox).leadgen_id}", {"fields": "id,adgroup_id"})
    assert answer.status == 400
    assert code_of(answer) == (100, None)
    assert "nonexisting field (adgroup_id)" in read(answer)["error"]["message"]


def test_the_truth_is_what_all_fields_show(sandbox: Sandbox) -> None:
    """Reading every field gives the truth, the page_id aside."""
    lead = lead_of(sandbox)
    truth = json.loads(json.dumps(sandbox.graph.reads.truth(lead)))
    fields = ",".join(name for name in truth if name != "page_id")
    shown = read(asked(sandbox, f"/{lead.leadgen_id}", {"fields": fields}))
    assert {**shown, "page_id": lead.page_id} == truth


def test_bodies_are_escaped_as_metas_are(sandbox: Sandbox) -> None:
    """Answers are ASCII with escaped slashes and at signs, and escapes in lower case."""
    form = sandbox.world.forms[0]
    body = asked(sandbox, f"/{form.form_id}", {"fields": "name,privacy_policy_url,questions"}).body
    assert body.isascii()
    assert "https:\\/\\/example.com" in body
    emails = asked(sandbox, f"/{lead_of(sandbox).leadgen_id}").body
    assert "@" not in emails
    assert "\\u0040" in emails


@pytest.mark.parametrize(
    ("path", "version"),
    [("/v23.0/{}", "v23.0"), ("/v19.0/{}", "v21.0"), ("/v99.0/{}", "v21.0"), ("/{}", "v21.0")],
)
def test_an_unknown_version_is_served_as_the_oldest(sandbox: Sandbox, path: str, version: str) -> None:
    """Expired, unknown and missing versions do not fail; only the header tells."""
    answer = asked(sandbox, path.format(lead_of(sandbox).leadgen_id))
    assert (answer.status, answer.version) == (200, version)


def test_reading_by_ids_is_gone(sandbox: Sandbox) -> None:
    """GET /?ids= answers HTTP 500 with code 100, whatever the version."""
    answer = asked(sandbox, "/v23.0/", {"ids": lead_of(sandbox).leadgen_id})
    assert (answer.status, code_of(answer)) == (500, (100, None))
    assert read(answer)["error"]["message"] == IDS_GONE.message


def test_a_token_is_needed_and_must_be_known(sandbox: Sandbox) -> None:
    """No token is 104, one that nobody gave out 190."""
    path = f"/{lead_of(sandbox).leadgen_id}"
    assert code_of(asked(sandbox, path, page=None)) == (104, None)
    assert code_of(asked(sandbox, path, {"access_token": "EAAGnobody"})) == (190, None)


def test_another_pages_token_sees_nothing(sandbox: Sandbox) -> None:
    """A good token of another Page gets what an unknown id gets: 100/33."""
    lead = lead_of(sandbox)
    for path in (f"/{lead.leadgen_id}", f"/{lead.form.form_id}/leads", f"/{lead.page_id}/leadgen_forms"):
        assert code_of(asked(sandbox, path, page=1)) == (100, 33)
    message = read(asked(sandbox, f"/{lead.leadgen_id}", page=1))["error"]["message"]
    assert f"Object with ID '{lead.leadgen_id}' does not exist" in message


def test_the_users_token_reads_leads_but_lists_none(sandbox: Sandbox) -> None:
    """A user token reads any Page's leads under X-App-Usage; listings want a Page token."""
    lead, token = lead_of(sandbox, page=1), {"access_token": sandbox.tokens.of_user}
    answer = asked(sandbox, f"/{lead.leadgen_id}", token)
    assert answer.status == 200
    assert [name for name, _ in answer.headers] == ["X-App-Usage"]
    assert code_of(asked(sandbox, f"/{lead.form.form_id}/leads", token)) == (190, None)
    mine = read(asked(sandbox, f"/{lead.page_id}", {**token, "fields": "access_token"}))
    assert mine["access_token"] == token_of(sandbox, 1)


def test_a_proof_is_checked_when_given(sandbox: Sandbox) -> None:
    """A right proof passes, a wrong one is code 100 and no auth code, a dated one dies after five minutes."""
    path, token = f"/{lead_of(sandbox).leadgen_id}", token_of(sandbox)
    right = hmac.new(sandbox.config.app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()
    assert asked(sandbox, path, {"appsecret_proof": right}).status == 200
    wrong = asked(sandbox, path, {"appsecret_proof": right[::-1]})
    assert code_of(wrong) == (100, None)
    assert read(wrong)["error"]["message"] == "Invalid appsecret_proof provided in the API argument"
    dated = proof(sandbox.config.app_secret, token, str(int(NOW)))
    params = {"appsecret_proof": dated, "appsecret_time": str(int(NOW))}
    assert asked(sandbox, path, params, now=NOW + 299).status == 200
    assert code_of(asked(sandbox, path, params, now=NOW + 301)) == (100, None)


def test_the_proof_vectors_of_the_documentation_hold() -> None:
    """Proofs are HMAC-SHA256 of the token, or of token and time, under the app secret."""
    assert proof("test_app_secret", "TOKEN").startswith("6bf65044b322f55f")
    assert proof("test_app_secret", "TOKEN", "1700000000").startswith("bdfadba4b0c03b55")


def test_a_required_proof_is_missed() -> None:
    """An app that requires proofs refuses calls without one, with code 100."""
    sandbox = made(require_proof=True)
    assert code_of(asked(sandbox, f"/{lead_of(sandbox).leadgen_id}")) == (100, None)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/{leadgen_id}", (803, None)),
        ("/123/leads", (100, 33)),
        ("/444444444444", (100, 33)),
        ("/{lead}/comments", (2500, None)),
        ("/a/b/c", (2500, None)),
        ("/" + "9" * 400, (100, 33)),
    ],
)
def test_paths_that_lead_nowhere(sandbox: Sandbox, path: str, code: tuple[int, int | None]) -> None:
    """A literal placeholder is 803, an unknown id 100/33, an unknown edge 2500."""
    assert code_of(asked(sandbox, path.replace("{lead}", lead_of(sandbox).leadgen_id))) == code


def test_what_is_unknown_is_named_as_it_was_asked_for(sandbox: Sandbox) -> None:
    """An error about an id that leads nowhere tells that id, whatever the call would have done with it."""
    for method, meant in (("GET", "get"), ("DELETE", "get"), ("POST", "post")):
        refused = asked(sandbox, "/123456789", method=method)
        assert code_of(refused) == (100, 33)
        text = f"Unsupported {meant} request. Object with ID '123456789'"
        assert text in read(refused)["error"]["message"]


def test_a_deleted_lead_is_gone(sandbox: Sandbox) -> None:
    """DELETE answers success once; after it the lead is unknown."""
    path = f"/{lead_of(sandbox).leadgen_id}"
    assert read(asked(sandbox, path, method="DELETE")) == {"success": True}
    assert code_of(asked(sandbox, path)) == (100, 33)
    assert code_of(asked(sandbox, path, method="DELETE")) == (100, 33)


def test_a_form_tells_its_questions_and_counts(sandbox: Sandbox) -> None:
    """A form shows its questions with options, its Page and how many leads it has."""
    form = sandbox.world.pages[0].forms[0]
    body = read(asked(sandbox, f"/v26.0/{form.form_id}", {"fields": "questions,leads_count,page_id,status"}))
    assert body["leads_count"] == sandbox.world.history_of(form)
    assert [question["key"] for question in body["questions"]] == [
        question.key for question in form.questions
    ]
    assert set(read(asked(sandbox, f"/{form.form_id}"))) == {"id", "locale", "name", "status"}


def test_me_is_the_tokens_page(sandbox: Sandbox) -> None:
    """With a Page token /me is that Page."""
    assert read(asked(sandbox, "/v26.0/me"))["id"] == sandbox.world.pages[0].page_id


NAMES = (
    "fields",
    "limit",
    "after",
    "before",
    "filtering",
    "appsecret_proof",
    "appsecret_time",
    "batch",
    "ids",
    "input_token",
)


@settings(max_examples=300, deadline=None)
@given(
    path=st.text(max_size=30)
    | st.sampled_from(
        [
            "/{lead}",
            "/{form}/leads",
            "/{ad}/leads",
            "/{page}/leadgen_forms",
            "/{page}",
            "/me/accounts",
            "/debug_token",
            "/",
        ]
    ),
    params=st.dictionaries(
        st.sampled_from(NAMES), st.text(st.characters(exclude_categories=()), max_size=40), max_size=4
    ),
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
)
def test_nothing_that_a_caller_sends_breaks_graph(path: str, params: dict[str, str], method: str) -> None:
    """Whatever comes in, an answer with JSON goes out."""
    sandbox = made(leads=12)
    form = sandbox.world.pages[0].forms[0]
    ids = {
        "lead": sandbox.world.lead(0).leadgen_id,
        "form": form.form_id,
        "ad": form.ads[0].ad_id,
        "page": form.page_id,
    }
    for name, node_id in ids.items():
        path = path.replace(f"{{{name}}}", node_id)
    answer = asked(sandbox, path, params, method=method)
    read(answer)
    assert answer.body.isascii()
    read(batch(sandbox, [path]))
