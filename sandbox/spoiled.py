"""What a fault makes of an answer: answer + fault -> the answer as it will look.

Only the faults that change status or body; those that are about time or the connection keep the answer as
it is and are carried out in transport.py.

Invariant: an answer without one of these faults comes back unchanged.
"""

from dataclasses import replace
from typing import Final

from sandbox.errors import CATALOG
from sandbox.faults import Fault
from sandbox.request import Answer

HTML: Final = (
    "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Sorry, something went wrong.</h1>"
    "<p>We're working on it and we'll get it fixed as soon as we can.</p></body></html>"
)


def spoil(answer: Answer, fault: Fault, trace: str) -> Answer:
    """The answer as the fault leaves it."""
    status, body = answer.status, answer.body
    match fault.name:
        case "5xx":
            status, body = fault.rule.status or 500, CATALOG["2"].body(trace)
        case "html_5xx":
            status, body = fault.rule.status or 502, HTML
        case "html_200":
            status, body = 200, HTML
        case "not_json":
            status, body = 200, "for (;;);"
        case "ok_with_error":
            status, body = 200, CATALOG["2"].body(trace)
        case "truncated":
            body = body[: len(body) // 2]
        case "huge_body":
            body = '{"id":"' + "0" * fault.rule.size + '"}'
        case "redirect":
            status, body = fault.rule.status or 302, ""
    return replace(answer, status=status, body=body)
