"""The exceptions of this package. All derive from :class:`BiosError`.

====================================  ==========================================================
:class:`InvalidArgumentError`         refused before anything was sent; also a ``ValueError``
:class:`InvalidPathError`             a malformed checkpoint path; also a ``ValueError``
:class:`APIStatusError` and children  the server refused a call (HTTP 4xx, 5xx)
:class:`APIConnectionError`           no response within the retry limit
:class:`APITimeoutError`              the timeout of ``result`` has passed; also a ``TimeoutError``
:class:`RequestFailedError`           an accepted operation failed
====================================  ==========================================================
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar

E = TypeVar("E", bound="BiosError")


class BiosError(Exception):
    """The base class of this package's exceptions. They can be pickled: ``multiprocessing`` passes them on."""

    def __reduce__(self) -> Tuple[Any, ...]:
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: Type[E], args: Tuple[Any, ...], fields: Mapping[str, Any]) -> E:
    """A pickled exception; its arguments are its message, not those of its constructor."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


#: The same under the name of Tinker's package.
TinkerError = BiosError


class InvalidArgumentError(BiosError, ValueError):
    """An invalid argument. Nothing was sent.

    ``field`` names the argument, down to the element: ``data[3].loss_fn_inputs.weights``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class InvalidPathError(InvalidArgumentError):
    """A text that is not a checkpoint path. Nothing was sent."""

    def __init__(self, path: object, why: Optional[str] = None) -> None:
        super().__init__(
            "path",
            f"{path!r} is not a checkpoint path{': ' + why if why else ''}; expected bios://<run>/<name>, "
            "bios://<run>/weights/<name> or bios://<run>/sampler_weights/<name>",
        )
        self.path = path


class APIError(BiosError):
    """A call to the server failed."""


class APIConnectionError(APIError):
    """The server was unreachable, or the connection broke, for longer than the retry limit."""


class APITimeoutError(APIConnectionError, TimeoutError):
    """The timeout has passed. The operation continues: wait for the same future again."""


class APIResponseError(APIError):
    """The response of the server could not be parsed."""


#: The same under the name of Tinker's package.
APIResponseValidationError = APIResponseError


class APIStatusError(APIError):
    """The server refused the call.

    ``status``: the HTTP status; ``code``: a stable word for programs; ``category``: ``user`` or ``server``;
    ``field``: the offending field of the request, if one is to blame; ``request_id``: the HTTP request's id
    in the server's log.
    """

    def __init__(self, status: int, body: bytes = b"") -> None:
        problem: Dict[str, Any] = {}
        try:
            read = json.loads(body) if body else {}
            if isinstance(read, dict):
                problem = read
        except ValueError:
            pass
        of_openai = problem.get("error")  # the form below /v1
        if isinstance(of_openai, dict):
            problem = {**of_openai, "error": of_openai.get("code"), "field": of_openai.get("param")}
        message = problem.get("message") or problem.get("detail")
        if not message and body.lstrip()[:1] == b"<":
            message = "the answer is a page of HTML: this is no Bios server, or a proxy in front of one; check base_url"
        if not message:
            message = body[:300].decode("utf-8", "replace").strip() or "no explanation given"
        self.status = status
        self.status_code = status
        self.code: Optional[str] = problem.get("error")
        self.category: str = problem.get("category") or ("server" if status >= 500 else "user")
        self.field: Optional[str] = problem.get("field")
        self.request_id: Optional[str] = problem.get("request_id")
        self.message = str(message)
        text = f"{self.field}: {self.message}" if self.field and self.field not in self.message else self.message
        super().__init__(f"{text} (HTTP {status}{', ' + str(self.code) if self.code else ''})")


class BadRequestError(APIStatusError):
    """400: the request is wrong; the message names the field."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or unknown."""


class PermissionDeniedError(APIStatusError):
    """403: the account may not do this."""


class NotFoundError(APIStatusError):
    """404: the object does not exist, or another account owns it."""


class ConflictError(APIStatusError):
    """409: the state of the object does not permit the call."""


class RequestTooLargeError(APIStatusError):
    """413: the body is larger than the limit of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed but invalid."""


class RateLimitError(APIStatusError):
    """429: a queue is full. The client retries automatically."""


class InternalServerError(APIStatusError):
    """5xx: a failure of the server. The client retries automatically for a limited time."""


_BY_STATUS: Dict[int, Type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RequestTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error(status: int, body: bytes = b"") -> APIStatusError:
    """The exception for an HTTP status that is not a success."""
    kind = _BY_STATUS.get(status, InternalServerError if status >= 500 else APIStatusError)
    return kind(status, body)


class RequestFailedError(BiosError):
    """An operation was accepted and failed.

    ``request_id``: the operation's id; ``category``: ``user``, ``server`` or ``unknown``; ``code``: a stable
    word for programs; ``message``: what happened and what to do.
    """

    def __init__(self, request_id: Optional[str], category: str, code: Optional[str], message: str) -> None:
        super().__init__(f"{message} ({code or category}, operation {request_id})")
        self.request_id = request_id
        self.category = category
        self.code = code
        self.message = message


class MissingExtraError(BiosError, ImportError):
    """A call needs a package that is not installed; the message names it."""
