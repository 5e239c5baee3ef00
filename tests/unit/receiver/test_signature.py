"""What counts as proof that the bytes are Meta's."""

import hashlib
import hmac

import pytest

from receiver.errors import Unsigned
from receiver.signature import verify

SECRET = b"test_app_secret"
LEAD = (
    b'{"object":"page","entry":[{"id":"153125381133","time":1438292065,"changes":[{"field":"leadgen",'
    b'"value":{"leadgen_id":"123123123123","page_id":"153125381133","form_id":"12312312312",'
    b'"adgroup_id":"12312312312","ad_id":"12312312312","created_time":1440120384}}]}]}'
)
LEAD_DIGEST = "b1ca1bca90778a9564ae2d49bc6458f5ccc9a81c8633a77785c117dab2e6d5db"
EMPTY = b'{"object":"whatsapp_business_account","entry":[]}'
EMPTY_DIGEST = "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"
ESCAPED = rb'{"object":"page","entry":[],"x":"\u00e4\u00f6\u00e5"}'
ESCAPED_DIGEST = "16e95436bcb548add41052591b77c7ff29458126d6322ce6566f376f6abe3a90"


def signed(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("body", "digest"), [(LEAD, LEAD_DIGEST), (EMPTY, EMPTY_DIGEST), (ESCAPED, ESCAPED_DIGEST)]
)
def test_a_genuine_signature_holds(body: bytes, digest: str) -> None:
    """The signature that Meta computes over the bytes it sends is accepted."""
    verify(body, f"sha256={digest}", [SECRET])


def test_the_same_text_in_other_bytes_does_not_hold() -> None:
    """The signature is of the bytes as they are written, not of the text that they mean."""
    unescaped = '{"object":"page","entry":[],"x":"äöå"}'.encode()
    with pytest.raises(Unsigned):
        verify(unescaped, f"sha256={ESCAPED_DIGEST}", [SECRET])


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        LEAD_DIGEST,
        f"sha256={LEAD_DIGEST[:-1]}",
        f"sha256={LEAD_DIGEST}0",
        f"sha256={LEAD_DIGEST.upper()}",
        f"SHA256={LEAD_DIGEST}",
        f"sha256={LEAD_DIGEST}\n",
        f"sha256= {LEAD_DIGEST}",
        f"sha256={LEAD_DIGEST}, sha256={LEAD_DIGEST}",
        "sha1=6582a2fb6d718d4dc377b229416ea2f9834f0859",
        f"sha256={LEAD_DIGEST[:-1]}é",
        f"sha256={LEAD_DIGEST[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
        f"sha256={'0' * 64}",
    ],
)
def test_what_is_not_exactly_the_form_is_unsigned(header: str | None) -> None:
    """A header that is missing, repeated, or of another form or digest is refused and breaks nothing."""
    with pytest.raises(Unsigned):
        verify(LEAD, header, [SECRET])


def test_every_secret_in_force_is_accepted() -> None:
    """While a secret is being rotated, deliveries signed with either are taken."""
    for secret in (b"old", b"new"):
        verify(LEAD, signed(LEAD, secret), [b"old", b"new"])
    with pytest.raises(Unsigned):
        verify(LEAD, signed(LEAD, b"older"), [b"old", b"new"])


def test_without_a_secret_nothing_is_genuine() -> None:
    """No secret means no proof, never no check."""
    with pytest.raises(Unsigned):
        verify(LEAD, signed(LEAD, b""), [])
