"""Refusals as HTTP: statuses and texts as Docker's clients know them.

What the control plane refuses carries `rpc error: code = X desc = ` before its sentence, because clients look
for parts of it; what the API itself refuses does not. What does not belong here: deciding what to refuse.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from swarmpy.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    PermissionDenied,
    Refusal,
    Unavailable,
    Unimplemented,
    Unknown,
)

log = logging.getLogger("swarmpy.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS: dict[type[Refusal], int] = {
    InvalidArgument: 400,
    NotFound: 404,
    AlreadyExists: 409,
    FailedPrecondition: 400,
    PermissionDenied: 403,
    Unimplemented: 501,
    Unknown: 500,
    OutOfSequence: 500,
    Unavailable: 503,
    Internal: 500,
}


class HttpError(Exception):
    """The API says no by itself: a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def status_of(refusal: Refusal) -> int:
    """HTTP status of a refusal; unknown kinds are the server's fault."""
    return next((STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS), 500)


def text_of(refusal: Refusal) -> str:
    """The text that clients see of a refusal by the control plane."""
    if isinstance(refusal, Unavailable | Internal):
        return refusal.message
    return f"rpc error: code = {refusal.code} desc = {refusal.message}"


@contextmanager
def plain(**statuses: int) -> Iterator[None]:
    """Refusals in the block are this node's own: no prefix. `statuses` overrides by the refusal's code."""
    try:
        yield
    except Refusal as refusal:
        raise HttpError(statuses.get(refusal.code, status_of(refusal)), refusal.message) from refusal


def error_response(status: int, message: str) -> web.Response:
    """Docker's error body."""
    # What is quoted from a request may hold half of a surrogate pair, which no answer can.
    shown = message.encode("utf-8", "replace").decode()
    body = msgspec.json.encode({"message": shown}) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")


class ClientsFaults(logging.LoggerAdapter[logging.Logger]):
    """The HTTP server's log: what is no HTTP is the client's fault, answered and not worth a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log an error of the server; for one of the client's a line for those who look for it."""
        if isinstance(exc_info, HttpProcessingError):
            self.debug("%s: %s", str(msg) % args, exc_info.message)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where exceptions become answers."""
    try:
        return await handler(request)
    except HttpError as error:
        return error_response(error.status, error.message)
    except Refusal as refusal:
        return error_response(status_of(refusal), text_of(refusal))
    except web.HTTPRequestEntityTooLarge:
        return error_response(413, "the request's body is too large: specs are limited to 2 MiB")
    except web.HTTPNotFound:
        return error_response(404, "page not found")
    except web.HTTPMethodNotAllowed as error:
        return error_response(405, f"method {error.method} is not allowed here")
    except web.HTTPException as error:
        return error_response(error.status, error.reason)
    except ConnectionResetError:
        raise  # the client went away in the middle of a stream: nobody is left to answer
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "an internal error of swarmpy: the daemon's log has the details")
