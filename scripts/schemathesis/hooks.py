"""Signs half of the webhooks as the carrier does (V3), so that what is behind the signature is attacked as well."""

import base64
import hashlib
import hmac
import itertools
import os
from urllib.parse import parse_qsl, urlsplit

import requests
import schemathesis

TOKEN = os.environ["CARRIER_TOKEN"].encode()
TURN = itertools.count()


def sign(url: str, body: bytes | str | None, nonce: str) -> str:
    parts = urlsplit(url)
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    pairs = lambda query: sorted(parse_qsl(query, keep_blank_values=True))  # noqa: E731
    query = "&".join(f"{key}={value}" for key, value in pairs(parts.query))
    form = "".join(key + value for key, value in pairs(text))
    message = f"{parts.scheme}://{parts.netloc}{parts.path}"
    message += "?" if query or form else ""
    message += query + ("." if query and form else "") + form + "." + nonce
    digest = hmac.new(TOKEN, message.encode(errors="replace"), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class Signed(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if next(TURN) % 2 == 0 and isinstance(request.body, bytes | str | None):
            request.headers["x-plivo-signature-v3-nonce"] = "4711"
            request.headers["x-plivo-signature-v3"] = sign(request.url, request.body, "4711")
        return request


schemathesis.auth.set_from_requests(Signed()).apply_to(path_regex="^/plivo/")


@schemathesis.hook
def before_call(context, case, kwargs) -> None:
    """A single call has `campaignId: null`; stateful tests take it for an id and write `None` into the path."""
    if case.path_parameters and case.path_parameters.get("id") in (None, "None"):
        case.path_parameters["id"] = "0" * 24
