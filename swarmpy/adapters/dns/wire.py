"""DNS packets: questions as strangers send them, and our replies.

What belongs here: bytes. What does not: names that exist, sockets. Questions are decoded by dnspython, which
knows the traps (pointers that loop, lengths that lie); before, the header must be that of a question, so that
the work stays small. Replies echo the question as it was asked, and own their records by a pointer to it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.rdatatype

A, PTR, SOA, AAAA, OPT, ANY = 1, 12, 6, 28, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, OPCODE, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x7800, 0x0010
HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHIH")
POINTER = b"\xc0\x0c"
PLAIN_UDP = 512
LARGEST_UDP = 1232
"""More than this may be fragmented on the way, and fragments get lost."""
LARGEST_TCP = 65535
LARGEST_QUERY = 2048
"""A name and its options need less; the work of decoding grows with the length."""
NEGATIVE_TTL = 5
"""Seconds that a client may remember that there is nothing: a service may come at any time."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question that is well-formed. `question` is its section as asked; `name` lower case without the
    final dot; `limit` what fits in a UDP reply; `edns` whether it had an OPT record, `plain` whether that
    (or its absence) is like in others, so that the packet is likely to come again."""

    id: bytes
    flags: int
    question: bytes
    name: str
    kind: int
    kind_name: str
    klass: int
    limit: int
    edns: bool = False
    version: int = 0
    plain: bool = True


def decode(packet: bytes) -> Query | bytes | None:
    """The query; or the reply that refuses what is none; or None for what is better not answered at all: an
    answer to a reply could be answered again for ever."""
    if len(packet) < HEADER.size:
        return None
    _, flags, questions, answers, authorities, additional = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return _bare(packet, flags, NOTIMP)
    if (questions, answers, authorities) != (1, 0, 0) or additional > 2 or len(packet) > LARGEST_QUERY:
        return _bare(packet, flags, FORMERR)
    try:
        return _decoded(packet, flags)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        # The latter three are what dnspython lets through for some malformed options.
        return _bare(packet, flags, FORMERR)


def _decoded(packet: bytes, flags: int) -> Query:
    message = dns.message.from_wire(packet)
    asked = message.question[0]
    wire = _wire(asked.name)
    end = HEADER.size + len(wire) + 4
    question = packet[HEADER.size : end]
    if question[:-4].lower() != wire.lower():
        raise ValueError("the name of a question has nothing to point to")
    edns = message.edns >= 0
    limit = max(PLAIN_UDP, min(message.payload, LARGEST_UDP)) if edns else PLAIN_UDP
    return Query(
        id=packet[:2],
        flags=flags,
        question=question,
        name=asked.name.to_text(omit_final_dot=True).lower() if asked.name != dns.name.root else "",
        kind=int(asked.rdtype),
        kind_name=dns.rdatatype.to_text(asked.rdtype),
        klass=int(asked.rdclass),
        limit=limit,
        edns=edns,
        version=max(0, message.edns),
        plain=not message.options and not message.had_tsig,
    )


def _bare(packet: bytes, flags: int, rcode: int) -> bytes:
    number = int.from_bytes(packet[:2])
    return HEADER.pack(number, QR | flags & (OPCODE | RD) | RA | rcode, 0, 0, 0, 0)


def render(
    query: Query, records: Sequence[bytes] = (), rcode: int = NOERROR, *, limit: int, negative: bool = False
) -> bytes:
    """The reply without its id: as many of the records as fit, marked as cut short if not all do.
    `negative`: with the SOA record by which clients remember that there is nothing."""
    flags = QR | query.flags & (RD | CD) | RA | rcode & 15
    if rcode in (NOERROR, NXDOMAIN):
        flags |= AA
    # OPT: the size is in place of the class, the upper bits of the code in that of the time to live.
    opt = b"\0" + RECORD.pack(OPT, LARGEST_UDP, rcode >> 4 << 24, 0) if query.edns else b""
    room = limit - HEADER.size - len(query.question) - len(opt)
    fitting = len(records)
    if sum(map(len, records)) > room:
        flags |= TC
        fitting = 0
        for record in records:
            room -= len(record)
            if room < 0:
                break
            fitting += 1
    authority = _NOTHING if negative else b""
    head = HEADER.pack(0, flags, 1, fitting, int(negative), int(query.edns))[2:]
    return b"".join((head, query.question, *records[:fitting], authority, opt))


def address_records(query: Query, addresses: Sequence[str], ttl: int) -> list[bytes]:
    """One record per address of the family that was asked. Raises OSError for what is no address."""
    families = ((A, 4, socket.AF_INET), (AAAA, 16, socket.AF_INET6))
    records = []
    for kind, size, family in families:
        if query.kind not in (kind, ANY):
            continue
        head = POINTER + RECORD.pack(kind, 1, ttl, size)
        wanted = [text for text in addresses if (":" in text) == (kind == AAAA)]
        records += [head + socket.inet_pton(family, text) for text in wanted]
    return records


def name_record(name: str, ttl: int) -> bytes:
    """A PTR record. Raises DNSException for what is no name."""
    data = _wire(dns.name.from_text(name))
    return POINTER + RECORD.pack(PTR, 1, ttl, len(data)) + data


def cut(reply: bytes, query: Query, limit: int) -> bytes:
    """Another server's reply, with the asker's id; without its records where they do not fit."""
    if len(reply) <= limit:
        return query.id + reply[2:]
    flags = int.from_bytes(reply[2:4]) | TC
    return query.id + flags.to_bytes(2) + HEADER.pack(0, 0, 1, 0, 0, 0)[4:] + query.question


def answers(reply: bytes, number: bytes, question: bytes) -> bool:
    """Whether the packet is the reply to the question asked under that id."""
    return (
        len(reply) >= HEADER.size + len(question)
        and reply[:2] == number
        and int.from_bytes(reply[2:4]) & (QR | OPCODE) == QR
        and reply[4:6] == b"\0\1"
        and reply[HEADER.size : HEADER.size + len(question)].lower() == question.lower()
    )


def _wire(name: dns.name.Name) -> bytes:
    data = name.to_wire()
    assert data is not None  # it is only without a file to write to
    return data


def _soa() -> bytes:
    numbers = struct.pack("!IIIII", 1, 3600, 600, 86400, NEGATIVE_TTL)
    data = _wire(dns.name.from_text("swarmpy.")) + _wire(dns.name.root) + numbers
    return b"\0" + RECORD.pack(SOA, 1, NEGATIVE_TTL, len(data)) + data


_NOTHING = _soa()
