"""Whatever bytes arrive, decoding ends quickly, raises nothing and says what a server may say."""

from __future__ import annotations

import time

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.adapters.dns import answers, wire
from swarmpy.model.links import Answer, Question

ANSWERS = {
    "web": Answer(addresses=tuple(f"10.0.0.{number}" for number in range(40))),
    "ptr": Answer(name="web.test"),
    "away": Answer(forward=True),
}
SEEDS = [
    dns.message.make_query("web", "A", use_edns=0, payload=4096).to_wire(),
    dns.message.make_query("wEB", "ANY").to_wire(),
    dns.message.make_query("ptr", "PTR").to_wire(),
    dns.message.make_query("away", "AAAA", want_dnssec=True).to_wire(),
    dns.message.make_query(".", "NS", use_edns=1).to_wire(),
    dns.message.make_query("a.b.c.d.e.f", "TYPE65280").to_wire(),
]
RCODES = {
    dns.rcode.NOERROR,
    dns.rcode.FORMERR,
    dns.rcode.NXDOMAIN,
    dns.rcode.NOTIMP,
    dns.rcode.REFUSED,
    dns.rcode.BADVERS,
}


def resolve(question: Question) -> Answer:
    assert question.name == question.name.lower()
    return ANSWERS.get(question.name, Answer(refused=True))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A query with some bytes changed, put in, taken out, or repeated."""
    packet = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(packet) - 1)))
        match draw(st.integers(0, 4)):
            case 0 if packet:
                packet[at] = draw(st.integers(0, 255))
            case 1:
                packet[at:at] = draw(st.binary(max_size=12))
            case 2:
                del packet[at : at + draw(st.integers(1, 8))]
            case 3:
                packet[at:at] = bytes([0xC0 | draw(st.integers(0, 63)), draw(st.integers(0, 255))])
            case _:
                packet += packet[at : at + 40]
    return bytes(packet)


def headed(body: bytes, counts: tuple[int, ...]) -> bytes:
    return b"\xab\xcd\x01\x00" + b"".join(count.to_bytes(2) for count in counts) + body


COUNTS = st.tuples(*(st.sampled_from([0, 1, 2, 65535]) for _ in range(4)))
PACKETS = mutated() | st.binary(max_size=600) | st.builds(headed, st.binary(max_size=300), COUNTS)


@settings(max_examples=300, deadline=None)
@given(PACKETS, st.booleans())
def test_any_packet(packet: bytes, tcp: bool) -> None:
    said = answers.decide(packet, "n", "10.0.0.1", resolve, tcp=tcp)
    if said is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    if isinstance(said, answers.Ask):
        assert said.query.name == "away"
        return
    for body in said.bodies:
        reply = dns.message.from_wire(packet[:2] + body)
        assert reply.flags & dns.flags.QR
        assert len(body) + 2 <= (65535 if tcp else 1232)
        assert reply.rcode() in RCODES
        if reply.question:
            question = wire.decode(packet).question
            assert body[10 : 10 + len(question)] == question


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | mutated(), st.binary(max_size=60))
def test_any_reply_of_another_server(reply: bytes, tail: bytes) -> None:
    question = SEEDS[1][12:]
    for packet in (reply, b"\1\2\x81\x80\0\1" + reply, b"\1\2\x81\x80\0\1\0\0\0\0\0\0" + question + tail):
        right = wire.answers(packet, b"\1\2", question)
        assert not right or packet[12 : 12 + len(question)].lower() == question.lower()


@pytest.mark.parametrize("size", [512, 2048, 65535])
def test_no_packet_is_much_work(size: int) -> None:
    """The worst that is known: names of pointers to pointers, as many records as fit, long options."""
    chain = b"".join(bytes([1, 97, 0xC0 | at >> 8, at & 255]) for at in range(12, 255, 4))
    option = b"\0\0\x29\4\xd0\0\0\0\0" + (size - 40).to_bytes(2) + (b"\xfd\xe9\0\0" * size)[: size - 40]
    packets = [
        headed((chain * (size // len(chain) + 1))[: size - 12], (1, 0, 0, 1)),
        headed(b"\3web\0\0\1\0\1" + option, (1, 0, 0, 1)),
        headed(b"\3web\0\0\1\0\1" * (size // 9), (65535, 65535, 65535, 65535)),
        headed(b"\3web\0\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0" * (size // 12), (1, 65535, 0, 0)),
        headed((b"\x3f" + b"x" * 63) * (size // 64), (1, 0, 0, 0)),
    ]
    for packet in packets:
        best = 10.0
        for _ in range(3):
            began = time.process_time()
            answers.decide(packet, "n", "c", resolve, tcp=True)
            best = min(best, time.process_time() - began)
        assert best < 0.1
