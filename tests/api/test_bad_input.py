"""Bytes that no honest client sends: Docker's statuses, no defect of ours, nothing changed, no traceback."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import resource
import time
import tracemalloc
from urllib.parse import quote

import pytest

from tests.api.conftest import SPEC, Rig

JSON = b"application/json"


def head(method: bytes, target: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: docker", *headers, b"", b""])


def get(target: str | bytes, *headers: bytes) -> bytes:
    return head(b"GET", target.encode() if isinstance(target, str) else target, *headers)


def post(target: str, body: bytes, *headers: bytes, kind: bytes = JSON) -> bytes:
    fields = (b"Content-Type: " + kind, b"Content-Length: %d" % len(body))
    return head(b"POST", target.encode(), *fields, *headers) + body


def create(**parts: object) -> bytes:
    return json.dumps({**SPEC, **parts}).encode()


def created_with(field: bytes) -> bytes:
    """A good service with one more field, as bytes that json.dumps would not write."""
    return create()[:-1] + b", " + field + b"}"


def query(value: object) -> str:
    return quote(json.dumps(value))


async def ask(rig: Rig, data: bytes) -> tuple[int, str]:
    """Status and text of the answer to these bytes."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    try:
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.transport.abort()
    first, _, rest = answer.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2].decode()


def nested(levels: int) -> bytes:
    return created_with(b'"Unknown": ' + b"[" * levels + b"]" * levels)


BAD = {
    "filter with half a surrogate": (get(f"/services?filters={query({chr(0xD800): ['x']})}"), 400),
    "role with half a surrogate": (get(f"/nodes?filters={query({'role': [chr(0xD800)]})}"), 500),
    "service with half a surrogate": (get(f"/tasks?filters={query({'service': [chr(0xD800)]})}"), 404),
    "filter that is a number": (get("/services?filters=17"), 400),
    "filter of numbers": (get(f"/services?filters={query({'name': [1]})}"), 400),
    "filter of a long number": (get("/services?filters=" + "9" * 6000), 400),
    "filter nested": (get("/services?filters=" + quote("[" * 3000)), 400),
    "name that is no UTF-8": (get("/services/%ff%ED%A0%80"), 404),
    "name with a zero": (get("/services/a%00b"), 404),
    "path with raw bytes": (get(b"/services/\xff"), 400),
    "query that is no UTF-8": (get("/services/x?insertDefaults=%ff"), 400),
    "content type of bytes": (post("/services/create", create(), kind=b"\xff\xfe"), 400),
    "form instead of JSON": (post("/services/create", b"a=b", kind=b"text/plain"), 400),
    "request id of bytes": (post("/services/create", create(), b"X-Swarmpy-Request-Id: \xff"), 400),
    "auth of bytes": (post("/services/create", create(), b"X-Registry-Auth: \xff"), 400),
    "auth that is a list": (
        post("/services/create", create(), b"X-Registry-Auth: " + base64.b64encode(b"[]")),
        400,
    ),
    "endless version": (get("/v" + "9" * 5000 + ".1/services"), 400),
    "endless minor version": (get("/v1." + "9" * 5000 + "/services"), 400),
    "version of tomorrow": (get("/v1.99/services"), 400),
    "version of three numbers": (get("/v1.41.2/services"), 400),
    "version of one number": (get("/v1/services"), 400),
    "version of yesterday": (get("/v0.1/services"), 400),
    "infinite number": (post("/services/create", created_with(b'"Unknown": 1e400')), 400),
    "minus infinity": (post("/services/create", created_with(b'"Unknown": -Infinity')), 400),
    "not a number": (post("/services/create", b'{"Name": NaN}'), 400),
    "endless number": (post("/services/create", created_with(b'"Unknown": ' + b"9" * 6000)), 400),
    "number beyond 64 bits": (post("/services/create", created_with(b'"Unknown": 18446744073709551616')), 400),
    "more replicas than can be": (
        post("/services/create", create(Mode={"Replicated": {"Replicas": 2**64 - 1}})),
        400,
    ),
    "half a surrogate": (post("/services/create", b'{"Name": "\\ud800"}'), 400),
    "no UTF-8": (post("/services/create", b'{"Name": "\xff"}'), 400),
    "half an object": (post("/services/create", create()[:-5]), 400),
    "two objects": (post("/services/create", create() * 2), 400),
    "a list": (post("/services/create", b"[]"), 400),
    "wrong types": (post("/services/create", create(TaskTemplate=[])), 400),
    "wrong type of a role": (post("/nodes/node2/update?version=1", b'{"Role": ["x"]}'), 400),
    "101 levels": (post("/services/create", nested(101)), 400),
    "800 levels": (post("/services/create", nested(800)), 400),
    "90000 levels": (post("/services/create", nested(90_000)), 400),
    "compressed": (post("/services/create", gzip.compress(create()), b"Content-Encoding: gzip"), 400),
    "negative length": (head(b"POST", b"/services/create", b"Content-Length: -1"), 400),
    "two lengths": (head(b"POST", b"/services/create", b"Content-Length: 1", b"Content-Length: 2"), 400),
    "length and chunks": (post("/services/create", b"{}", b"Transfer-Encoding: chunked"), 400),
    "no chunk": (head(b"POST", b"/services/create", b"Transfer-Encoding: chunked") + b"zz\r\n", 400),
    "no host": (b"GET /services HTTP/1.1\r\n\r\n", 400),
    "header with a space": (get("/services", b"Bad : x"), 400),
    "folded header": (get("/services", b"X: a", b" b"), 400),
    "header without end": (get("/services", b"X: " + b"y" * 70_000), 431),
    "three thousand headers": (get("/services", *(b"X-%d: y" % n for n in range(3000))), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
    "method in small letters": (b"get /services HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    "update without a version": (post("/services/x/update", create()), 400),
    "version that is no number": (post("/services/x/update?version=1e3", create()), 400),
    "version beyond 64 bits": (post("/services/x/update?version=" + "9" * 30, create()), 400),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_bad_bytes(rig: Rig, caplog: pytest.LogCaptureFixture, name: str) -> None:
    data, status = BAD[name]
    before = rig.control.current
    with caplog.at_level(logging.INFO):
        found, text = await ask(rig, data)
    assert found == status, text
    assert rig.control.current is before, "nothing is changed"
    assert text, "a refusal says why"
    assert "Traceback" not in text
    assert "internal error" not in text
    assert [record for record in caplog.records if record.exc_info] == []


async def test_ten_levels_a_long_token_and_a_long_filter_are_welcome(rig: Rig) -> None:
    token = base64.urlsafe_b64encode(json.dumps({"identitytoken": "t" * 20_000}).encode())
    spec = created_with(b'"Unknown": ' + b"[" * 90 + b"]" * 90)
    status, text = await ask(rig, post("/services/create", spec, b"X-Registry-Auth: " + token))
    assert status == 201, text
    status, text = await ask(rig, get(f"/services?filters={query({'name': ['web', 'x' * 12_000]})}"))
    assert (status, len(json.loads(text))) == (200, 1)
    status, text = await ask(rig, get("/v1.41.0/services"))
    assert status == 200, text


async def test_of_a_repeated_key_the_last_counts(rig: Rig) -> None:
    status, text = await ask(rig, post("/services/create", created_with(b'"Name": "last"')))
    assert status == 201, text
    status, found = await rig.call("GET", "/services/last")
    assert (status, found["Spec"]["Name"]) == (200, "last")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
async def test_a_hundred_mebibytes(rig: Rig, declared: bool) -> None:
    size, piece = 100 * 1024 * 1024, bytes(1024 * 1024)
    how = b"Content-Length: %d" % size if declared else b"Transfer-Encoding: chunked"
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    answering = asyncio.create_task(reader.readuntil(b"\r\n"))
    tracemalloc.start()
    writer.write(head(b"POST", b"/services/create", b"Content-Type: application/json", how))
    sent = 0
    try:
        while sent < size:
            writer.write(piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.wait_for(writer.drain(), 5)
            sent += len(piece)
    except ConnectionError:
        pass  # answered and hung up before the end, as it should
    answer = await asyncio.wait_for(answering, 5)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:80]
    assert held < 16 * 1024 * 1024, f"{held} bytes were held"
    assert (await rig.call("GET", "/services"))[0] == 200


async def test_slow_heads_do_not_keep_others_out(rig: Rig) -> None:
    """Hundreds of connections that never finish their request; an honest one is answered at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(400, (soft - 200) // 2)
    slow = [await asyncio.open_unix_connection(str(rig.socket)) for _ in range(number)]
    try:
        for _, writer in slow:
            writer.write(b"GET /services HTTP/1.1\r\nX-Slow: ")
        began = time.monotonic()
        assert (await rig.call("GET", "/services"))[0] == 200
        assert time.monotonic() - began < 1
    finally:
        for _, writer in slow:
            writer.transport.abort()
