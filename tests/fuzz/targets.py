"""What reads bytes and texts of others, and what each reader promises.

A target is a strategy and a check. The check may raise nothing: it catches the exceptions that the reader
declares, and asserts what holds of everything it let through. What does not belong here: how often they run
(test_fuzz.py in CI, __main__.py for as long as one likes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
from hypothesis import strategies as st

from swarmpy.adapters.raft import messages as raft_messages
from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.frames import CorruptError, FrameWriter, read_frames
from swarmpy.adapters.raft.store import replay
from swarmpy.adapters.wire import codec as wire_codec
from swarmpy.adapters.wire.channel import amount
from swarmpy.adapters.wire.faults import parse_address
from swarmpy.api import body as api_body
from swarmpy.api import filters as api_filters
from swarmpy.api.errors import HttpError
from swarmpy.api.events import moment
from swarmpy.api.passthrough import closing, is_ours
from swarmpy.api.site import parse_version
from swarmpy.cli import grammars, values
from swarmpy.cli.tables import Kind
from swarmpy.model import codec, messages
from swarmpy.model.commands import AnyCommand, decode_command
from swarmpy.model.errors import InvalidArgument
from swarmpy.model.specs import compact, node_view, service_view, swarm_view
from swarmpy.pki import ca, certs, identity, tokens
from swarmpy.pki.errors import CertificateError, CsrError, TokenError
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import WireError
from swarmpy.state.changes import Batch
from tests.fuzz.bytes_ import BODIES, JSON_BYTES, JSON_TEXTS, MSGPACK_LIKE, PLAIN, damaged, of, packed

PLAIN_TYPES = (type(None), bool, int, float, str, bytes)


@dataclass(frozen=True)
class Target:
    """`check` is given what `strategy` draws."""

    name: str
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], None]


TARGETS: list[Target] = []


def target(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the function as the check of a target."""

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        TARGETS.append(Target(check.__name__, strategy, check))
        return check

    return register


def is_plain(value: Any) -> bool:
    """Whether it is of the types that bodies are promised to have."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return type(value) in PLAIN_TYPES


# ------------------------------------------------------------ the wire


@target(packed(PLAIN))
def wire_values(data: bytes) -> None:
    try:
        value = wire_codec.unpack(data)
    except wire_codec.FrameError:
        return
    assert is_plain(value), value
    again = wire_codec.unpack(wire_codec.pack(value))
    assert wire_codec.pack(again) == wire_codec.pack(value)


@target(BODIES)
def wire_bodies_round_trip(body: dict[str, Any]) -> None:
    assert wire_codec.unpack_body(wire_codec.pack(body)) == body


@target(packed(st.tuples(st.integers(-1, 6), PLAIN, PLAIN) | st.lists(PLAIN, max_size=4)))
def wire_frames(data: bytes) -> None:
    try:
        kind, rest = wire_codec.unpack_frame(data)
        assert type(kind) is int
        if kind == wire_codec.REFUSE and rest:
            refusal = wire_codec.refusal_from(wire_codec.as_body(rest[0]))
            assert isinstance(refusal.message, str)
            assert isinstance(refusal.data, dict)
        elif rest:
            assert 0 < amount(rest[0]) <= 2**30
    except wire_codec.FrameError:
        return


@target(st.text(max_size=40) | st.from_regex(r"\A[\[\]0-9a-z.:%-]{0,20}:[0-9²٣_+-]{0,7}\Z"))
def wire_addresses(text: str) -> None:
    try:
        _, port = parse_address(text)
    except WireError:
        return
    assert 0 <= port < 65536


# ------------------------------------------------------------ raft

_NUMBERS = st.integers(-1, 3) | st.sampled_from([2**62 - 1, 2**62, 2**64 - 1])
_FIELDS = {name: dict(fields) for name, fields in raft_messages.FIELDS.items()}
_ENTRIES = st.lists(st.tuples(st.binary(max_size=5), _NUMBERS).map(list) | PLAIN, max_size=4)


@st.composite
def _raft_body(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(_FIELDS)))
    values_ = _NUMBERS | st.booleans() | st.binary(max_size=5) | _ENTRIES | PLAIN
    body: dict[str, Any] = {name: draw(values_) for name in _FIELDS[kind]}
    body["type"] = kind
    for _ in range(draw(st.integers(0, 1))):
        body.pop(draw(st.sampled_from(sorted(body))))
    return body


@target(_raft_body() | BODIES)
def raft_bodies(body: dict[str, Any]) -> None:
    found = raft_messages.check(body)
    if found is not None:
        assert found == body
        for name in _FIELDS[found["type"]]:
            if "term" in name.lower() or "index" in name.lower() or name == "seq":
                assert 0 <= found[name] < 2**62


_CONTEXT = b"fuzzed"
_PAYLOADS = [b"first" * 10, b"", b"x" * 1500, bytes(600), b"last"]


def _file() -> bytes:
    writer = FrameWriter(PlainSealer(), _CONTEXT)
    return b"".join(map(writer.frame, _PAYLOADS))


@target(damaged(_file()) | st.binary(max_size=600))
def raft_frames(data: bytes) -> None:
    """What is read of a damaged file is a true beginning of what was written, or it is refused."""
    try:
        for number, payload, _ in read_frames(data, PlainSealer(), _CONTEXT, what="file"):
            assert payload == _PAYLOADS[number]
    except CorruptError as error:
        assert "file is damaged" in str(error)


_RECORDS = st.lists(
    st.one_of(
        st.tuples(st.just(1), _NUMBERS, _NUMBERS, st.binary(max_size=6)),
        st.tuples(st.just(2), _NUMBERS),
        st.tuples(st.just(3), _NUMBERS, st.none() | st.text(max_size=3)),
        st.lists(PLAIN, max_size=4),
        PLAIN,
    ).map(lambda record: list(record) if isinstance(record, tuple) else record),
    max_size=6,
)
_BASES = st.tuples(
    st.just(1), st.just("m1"), st.integers(0, 2), _NUMBERS, st.none() | st.text(max_size=3), _NUMBERS
)


@target(
    st.lists(
        st.builds(lambda base, rest: bytes(msgpack.packb([list(base), *rest])), _BASES, _RECORDS)
        | _RECORDS.map(lambda records: bytes(msgpack.packb(records)))
        | MSGPACK_LIKE,
        max_size=3,
    )
)
def journal_records(payloads: list[bytes]) -> None:
    try:
        image = replay("journal", "m1", enumerate(payloads))
    except CorruptError:
        return
    indexes = [index for _, index, _ in image.entries]
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes)))
    assert [term for _, _, term in image.entries] == sorted(term for _, _, term in image.entries)
    assert all(type(command) is bytes for command, _, _ in image.entries)


_MEMBERS = st.lists(
    st.tuples(st.text(max_size=4), st.text(max_size=4), st.booleans()).map(list) | PLAIN, max_size=3
)
_MEMBERSHIPS = st.fixed_dictionaries(
    {"members": _MEMBERS | PLAIN, "removed": st.lists(PLAIN, max_size=2) | PLAIN}
)


@target(
    packed(st.tuples(st.just(1) | PLAIN, _NUMBERS, _NUMBERS, _MEMBERSHIPS | PLAIN, st.binary(max_size=5)))
)
def raft_snapshots(blob: bytes) -> None:
    try:
        found = Snapshot.from_blob(blob)
    except ValueError:
        return
    assert Snapshot.from_blob(found.to_blob()) == found


@target(packed(_MEMBERSHIPS).map(lambda data: b"\x02" + data) | st.binary(max_size=30))
def raft_memberships(entry: bytes) -> None:
    try:
        found = Membership.from_entry(entry)
    except ValueError:
        return
    if found is not None:
        assert Membership.from_entry(found.to_entry()) == found


# ------------------------------------------------------------ the model

_COMMANDS = of(AnyCommand)
_UP = of(messages.Up)
_DOWN = of(messages.Down)


@target(_COMMANDS)
def commands_round_trip(command: Any) -> None:
    assert decode_command(codec.encode(command)) == command


@target(_COMMANDS.map(codec.encode).flatmap(damaged) | packed(BODIES))
def commands(data: bytes) -> None:
    try:
        found = decode_command(data)
    except codec.CodecError:
        return
    assert decode_command(codec.encode(found)) == found


@target(of(Batch).map(codec.encode).flatmap(damaged) | packed(BODIES))
def batches(data: bytes) -> None:
    try:
        found = codec.decode(Batch, data)
    except codec.CodecError:
        return
    assert codec.decode(Batch, codec.encode(found)) == found


@target(_UP)
def messages_up_round_trip(message: Any) -> None:
    body = wire_codec.unpack_body(wire_codec.pack(messages.to_body(message)))
    assert messages.up_from(body) == message


@target(_DOWN)
def messages_down_round_trip(message: Any) -> None:
    body = wire_codec.unpack_body(wire_codec.pack(messages.to_body(message)))
    assert messages.down_from(body) == message


@st.composite
def _bent(draw: st.DrawFn) -> dict[str, Any]:
    """A message's body with one of its fields, or one inside them, replaced by anything."""
    body: dict[str, Any] = messages.to_body(draw(_UP | _DOWN | of(messages.Hello)))
    inner: Any = body
    for _ in range(draw(st.integers(0, 2))):
        below = [
            one
            for one in (inner.values() if isinstance(inner, dict) else inner)
            if one and isinstance(one, dict | list)
        ]
        if below:
            inner = draw(st.sampled_from(below))
    if isinstance(inner, dict) and inner:
        inner[draw(st.sampled_from(sorted(inner)))] = draw(PLAIN)
    elif isinstance(inner, list) and inner:
        inner[0] = draw(PLAIN)
    return body


@target(_bent() | BODIES)
def agents_messages(body: dict[str, Any]) -> None:
    for read in (messages.hello_from, messages.up_from, messages.down_from):
        try:
            found = read(body)
        except ValueError:
            continue
        assert read(messages.to_body(found)) == found  # type: ignore[arg-type]


@target(JSON_TEXTS)
def stored_specs(text: str) -> None:
    for view in (service_view, node_view, swarm_view):
        try:
            view(text)
        except InvalidArgument:
            continue


# ------------------------------------------------------------ trust

_AUTHORITY = ca.Authority.create(1_700_000_000_000_000_000)
_KEY, _CSR = identity.make_key_and_csr()
_CERT = _AUTHORITY.issue(_CSR, "n1", "manager", "c1", 1_700_000_000_000_000_000)
_TOKENS = {role: tokens.make_token(_AUTHORITY.digest()) for role in ("worker", "manager")}


def _pem(kind: str, data: bytes) -> bytes:
    import base64

    return (
        f"-----BEGIN {kind}-----\n".encode() + base64.encodebytes(data) + f"-----END {kind}-----\n".encode()
    )


def _der(pem: bytes) -> bytes:
    import base64

    return base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"---")))


@target(
    damaged(_CSR)
    | damaged(_der(_CSR)).map(lambda der: _pem("CERTIFICATE REQUEST", der))
    | st.binary(max_size=99)
)
def certificate_requests(pem: bytes) -> None:
    try:
        issued = _AUTHORITY.issue(pem, "n1", "worker", "c1", 1_700_000_000_000_000_000)
    except CsrError:
        return
    found = certs.load_pem(issued)
    assert (found.node_id, found.role, found.cluster_id) == ("n1", "worker", "c1")
    assert found.names == {"n1", "swarm-worker"}


@target(
    damaged(_CERT) | damaged(_der(_CERT)).map(lambda der: _pem("CERTIFICATE", der)) | st.binary(max_size=99)
)
def certificates(pem: bytes) -> None:
    for read in (certs.load_pem, certs.load_der, lambda pem: certs.load_der(_der_or(pem))):
        try:
            found = read(pem)
        except CertificateError:
            continue
        assert found.role in ("worker", "manager")


def _der_or(pem: bytes) -> bytes:
    try:
        return _der(pem)
    except ValueError:
        return pem


@target(damaged(_AUTHORITY.cert_pem + _KEY))
def identities(pem: bytes) -> None:
    for parts in ((pem, _KEY, _AUTHORITY.cert_pem), (_CERT, pem, _AUTHORITY.cert_pem), (_CERT, _KEY, pem)):
        try:
            identity.NodeIdentity(*parts).check(1_700_000_001_000_000_000)
        except CertificateError:
            continue


@target(
    st.sampled_from(sorted(_TOKENS.values()))
    .map(str.encode)
    .flatmap(damaged)
    .map(lambda data: data.decode("latin-1"))
    | st.from_regex(r"\ASWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}\Z")
    | st.from_regex(r"\ASWMKEY-1-[A-Za-z0-9+/]{43}\Z")
    | st.text(max_size=90)
)
def join_tokens(text: str) -> None:
    try:
        assert tokens.parse_token(text).text() == text
        role = tokens.role_of_token(text, _TOKENS)
        assert _TOKENS[role] == text
    except TokenError as error:
        assert "\n" not in str(error)
        assert text not in str(error) or len(text) < 4
    try:
        assert tokens.unlock_key_text(tokens.parse_unlock_key(text)) == text
    except TokenError as error:
        assert "\n" not in str(error)


# ------------------------------------------------------------ the API


@target(JSON_BYTES)
def api_objects(data: bytes) -> None:
    try:
        found = api_body.parse_object(data)
    except HttpError as error:
        assert error.status == 400
        return
    stored = compact(found)
    assert json.loads(stored, parse_constant=_never) == found
    stored.encode()
    for view in (service_view, node_view, swarm_view):
        try:
            view(stored)
        except InvalidArgument as refusal:
            refusal.message.encode()
    msgspec.json.decode(stored)


def _never(name: str) -> Any:
    raise AssertionError(f"{name} was stored")


@target(JSON_TEXTS | st.text(max_size=40))
def api_filter_texts(text: str) -> None:
    try:
        found = api_filters.parse(text)
        found.only(("name", "id", "label", "role", "node", "service", "mode"))
        found.words("role", ("worker", "manager"))
    except HttpError as error:
        assert error.status in (400, 500)
        return
    assert all(isinstance(one, str) for key in found.values for one in found.get(key))
    found.prefix("name", "web")
    found.labels("label", {"a": "b"})


@target(st.text(max_size=40) | st.from_regex(r"\A-?[0-9٣]{0,25}(\.[0-9²]{0,25})?\Z"))
def api_moments(text: str) -> None:
    try:
        found = moment(text, "since")
    except HttpError as error:
        assert error.status == 400
        return
    assert found is None or abs(found) < 10**21


@target(st.from_regex(r"\A[0-9.]{1,30}\Z") | st.sampled_from(["9" * 5000, "." * 5000, "1." + "4" * 6000]))
def api_versions(text: str) -> None:
    found = parse_version(text)
    assert found == parse_version(text + ".0")
    assert (found >= (1, 42)) is (not found < (1, 42))


_HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"Connection", b"connection", b"Upgrade", b"Host", b"X"]),
        st.sampled_from([b"close", b"keep-alive", b"Upgrade", b"tcp", b"", b"a, b", b"\xff"]),
    ),
    max_size=5,
)


@target(
    st.tuples(st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line), _HEADERS)
)
def front_door(parts: tuple[bytes, list[tuple[bytes, bytes]]]) -> None:
    line, headers = parts
    head = b"\r\n".join([line, *(name + b": " + value for name, value in headers), b"", b""])
    asked = closing(head)
    assert asked.endswith(b"\r\n\r\n")
    assert asked.count(b"\r\n\r\n") == 1
    connection = [one for one in asked.lower().split(b"\r\n") if one.startswith(b"connection:")]
    if b"upgrade:" not in asked.lower():
        assert connection == [b"connection: close"]
    is_ours("GET", line.decode("latin-1"))


# ------------------------------------------------------------ the command line

_FLAG_WORDS = st.sampled_from(
    ["type=bind", "source=/a", "target=/b", "readonly", "ro=1", "bind-propagation=rprivate", "tmpfs-size=1g",
     "tmpfs-mode=1777", "volume-opt=a=b", "volume-label=x", "published=80", "target=80", "mode=host",
     "protocol=udp", "80", "8000-8010", ":", "/", "tcp", "-", "=", ",", '"', "\n", "\r", "'", "\\", " ", ".",
     "1", "h", "ms", "µs", "9" * 400, "9" * 5000, "1e999999999", "1/3", "1/0", "k", "GiB", "٣", "²", "_", "0x",
     "nofile=", "-1", "spread=", "node.labels.x", "gpu=", "0", "+", "e", "inf", "nan"]
)  # fmt: skip
_FLAG_TEXTS = (
    st.lists(_FLAG_WORDS, max_size=7).map("".join)
    | st.lists(_FLAG_WORDS, max_size=5).map(",".join)
    | st.text(max_size=30)
)
_KINDS = [
    (f"{room.__name__.rpartition('.')[2]}.{name}", kind)
    for room in (grammars, values)
    for name, kind in sorted(vars(room).items())
    if isinstance(kind, Kind)
]


@target(_FLAG_TEXTS)
def command_line_values(text: str) -> None:
    """Every kind of flag value: a sentence or what JSON can carry, within 64 bits where it is a number."""
    for name, kind in _KINDS:
        try:
            found = kind.parse(text)
        except ValueError as error:
            assert str(error), name
            assert len(str(error)) < 2 * len(text) + 300, name
            continue
        for number in _numbers(found):
            if isinstance(number, int):
                assert -(2**63) <= number < 2**64, (name, number)
            else:
                assert math.isfinite(number), (name, number)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list | tuple):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) else []


@target(st.integers(0, 2**63 - 1))
def durations_round_trip(nanoseconds: int) -> None:
    seconds, rest = divmod(nanoseconds, 10**9)
    assert values.duration(f"{seconds}.{rest:09d}s") == nanoseconds
    assert values.duration(f"{nanoseconds}ns") == nanoseconds
    assert values.duration(f"{seconds // 60}m{seconds % 60}s{rest}ns") == nanoseconds


@target(st.tuples(st.integers(1, 65535), st.integers(0, 65535), st.sampled_from(["tcp", "udp", "sctp"])))
def ports_round_trip(parts: tuple[int, int, str]) -> None:
    inner, outer, protocol = parts
    long = grammars.port(f"published={outer},target={inner},protocol={protocol},mode=ingress")
    short = grammars.port(f"{outer}:{inner}/{protocol}" if outer else f"{inner}/{protocol}")
    assert long == short
