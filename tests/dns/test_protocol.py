"""What is answered to what, over UDP and TCP, with dnspython as the client."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from swarmpy.model.links import Answer, Question
from tests.dns.servers import OWN, PORT, address, ask, exchange, texts


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_a_name(server, table, tcp) -> None:
    reply = await ask(server, "web", tcp=tcp)
    assert texts(reply) == ["10.0.1.2"]
    assert reply.answer[0].ttl == 600
    assert reply.flags & (dns.flags.QR | dns.flags.AA | dns.flags.RA | dns.flags.RD)
    assert not reply.flags & dns.flags.TC
    assert table.asked == [Question("net1", "127.0.0.1", "web", "A")]


@pytest.mark.parametrize("again", [False, True], ids=["first", "remembered"])
async def test_the_question_comes_back_as_it_was_asked(server, table, again) -> None:
    query = dns.message.make_query("wEb", "A")
    for _ in range(1 + again):
        reply = await exchange(server, query.to_wire())
    assert reply is not None
    assert reply[12:17] == b"\x03wEb\0"
    assert {question.name for question in table.asked} == {"web", "probe.test"}


async def test_a_known_name_without_such_a_type_is_empty(server) -> None:
    for kind in ("AAAA", "MX", "TXT", "TYPE4711", "HTTPS", "PTR"):
        reply = await ask(server, "web", kind)
        assert reply.rcode() == dns.rcode.NOERROR
        assert not reply.answer
        assert reply.authority[0].rdtype == dns.rdatatype.SOA


async def test_six_and_four(server, table) -> None:
    table.answers["both"] = Answer(addresses=("10.0.1.9", "fd00::9"))
    assert texts(await ask(server, "both", "A")) == ["10.0.1.9"]
    assert texts(await ask(server, "both", "AAAA")) == ["fd00::9"]
    assert sorted(texts(await ask(server, "both", "ANY"))) == ["10.0.1.9", "fd00::9"]


async def test_reverse(server, table) -> None:
    table.answers["2.1.0.10.in-addr.arpa"] = Answer(name="web.1.abc.front", ttl=7)
    reply = await ask(server, "2.1.0.10.in-addr.arpa", "PTR")
    assert texts(reply) == ["web.1.abc.front."]
    assert reply.answer[0].ttl == 7


async def test_what_must_not_exist_is_not_looked_for_elsewhere(server) -> None:
    reply = await ask(server, "gone")
    assert reply.rcode() == dns.rcode.NXDOMAIN
    soa = reply.authority[0]
    assert soa.rdtype == dns.rdatatype.SOA
    assert soa.ttl == soa[0].minimum == 5


async def test_answers_take_turns_also_from_memory(server, table) -> None:
    firsts = [texts(await ask(server, "many"))[0] for _ in range(16)]
    assert len({*firsts}) == 8
    assert sorted(firsts) == sorted([*set(firsts)] * 2)  # each came first equally often
    assert len([question for question in table.asked if question.name == "many"]) == 1


async def test_what_changes_counts_at_once(server, table, names) -> None:
    for number in range(50):
        table.answers["web"] = Answer(addresses=(f"10.0.3.{number}",))
        names.changed()
        for _ in range(2):
            assert texts(await ask(server, "web")) == [f"10.0.3.{number}"]


async def test_what_was_remembered_of_another_resolver_does_not_count(server, names) -> None:
    assert texts(await ask(server, "web")) == ["10.0.1.2"]
    names.begin(lambda question: Answer(addresses=("10.7.7.7",)))
    assert texts(await ask(server, "web")) == ["10.7.7.7"]


async def test_each_client_has_its_own_answer(names, table) -> None:
    where = address()
    await names.serve("net2", OWN, [where])
    one, two = address(), address()
    views = {one: "10.0.0.1", two: "10.0.0.2"}
    names_seen = []

    def resolve(question: Question) -> Answer:
        names_seen.append(question.network_id)
        return Answer(addresses=(views[question.client],))

    names.begin(resolve)
    for _ in range(3):
        for client, expected in views.items():
            assert texts(await ask(where, "web", source=client)) == [expected]
    assert names_seen == ["net2", "net2"]


@pytest.mark.parametrize("count", [29, 30, 200, 3000])
async def test_what_does_not_fit_is_cut_and_asked_again_by_tcp(server, table, count) -> None:
    addresses = tuple(f"10.{number >> 8}.{number & 255}.7" for number in range(count))
    table.answers["big"] = Answer(addresses=addresses)
    reply = await ask(server, "big", use_edns=-1)
    assert bool(reply.flags & dns.flags.TC) == (count > 30)
    assert len(texts(reply)) == min(count, 30)  # 512 = 12 + 9 + 30 * 16 + 11
    assert len(reply.to_wire()) <= 512
    whole = await ask(server, "big", tcp=True)
    assert sorted(texts(whole)) == sorted(addresses)


@pytest.mark.parametrize(
    ("payload", "limit"), [(0, 512), (512, 512), (900, 900), (1232, 1232), (65535, 1232)]
)
async def test_edns_sizes(server, table, payload, limit) -> None:
    table.answers["big"] = Answer(addresses=tuple(f"10.1.{n}.7" for n in range(200)))
    query = dns.message.make_query("big", "A", use_edns=0, payload=payload)
    reply = await exchange(server, query.to_wire())
    assert reply is not None
    assert limit - 16 < len(reply) <= limit
    decoded = dns.message.from_wire(reply)
    assert decoded.edns == 0
    assert decoded.payload == 1232
    assert decoded.flags & dns.flags.TC


async def test_without_edns_none_comes_back(server) -> None:
    assert (await ask(server, "web", use_edns=-1)).edns == -1


async def test_an_edns_version_to_come(server) -> None:
    reply = await ask(server, "web", use_edns=1)
    assert reply.rcode() == dns.rcode.BADVERS
    assert reply.edns == 0


async def test_options_are_not_echoed_and_not_remembered(server, table, names) -> None:
    for number in range(5):
        cookie = dns.edns.GenericOption(10, number.to_bytes(8))
        assert texts(await ask(server, "web", use_edns=0, options=[cookie])) == ["10.0.1.2"]
    assert not names._served["net1"].zone.memory.kept


@pytest.mark.parametrize("rdclass", ["CH", "HS", "ANY"])
async def test_other_classes_are_refused(server, rdclass) -> None:
    reply = await ask(server, "web", rdclass=rdclass)
    assert reply.rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "TKEY", "OPT", "TYPE0"])
async def test_transfers_are_refused(server, kind) -> None:
    query = dns.message.make_query("web", "A").to_wire()
    number = dns.rdatatype.from_text(kind)
    packet = query[:-4] + number.to_bytes(2) + query[-2:]
    reply = await exchange(server, packet)
    assert reply is not None
    assert reply[3] & 15 == dns.rcode.REFUSED


@pytest.mark.parametrize("opcode", range(1, 16))
async def test_other_opcodes_are_not_implemented(server, opcode) -> None:
    query = dns.message.make_query("web", "A")
    query.set_opcode(opcode)
    reply = await exchange(server, query.to_wire())
    assert reply is not None
    assert reply[3] & 15 == dns.rcode.NOTIMP
    assert reply[2] >> 3 & 15 == opcode


async def test_replies_are_never_answered(server) -> None:
    query = dns.message.make_query("web", "A")
    query.flags |= dns.flags.QR
    assert await exchange(server, query.to_wire()) is None
    assert await exchange(server, b"\0\1\2") is None


HEAD = b"\x12\x34\x01\x00"


@pytest.mark.parametrize(
    "packet",
    [
        HEAD + b"\0\0\0\0\0\0\0\0",  # no question
        HEAD + b"\0\2\0\0\0\0\0\0" + b"\3web\0\0\1\0\1" * 2,
        HEAD + b"\0\1\0\1\0\0\0\0" + b"\3web\0\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4",
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\3web",  # cut short
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\1\0\1",  # points to itself
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\xc0\x00\0\1\0\1",  # into the header
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\3web\xc0\x0c\0\1\0\1",  # back and forth
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\x41" + b"x" * 65 + b"\0\0\1\0\1",  # a label too long
        HEAD + b"\0\1\0\0\0\0\0\0" + (b"\x3f" + b"x" * 63) * 5 + b"\0\0\1\0\1",  # a name too long
        HEAD + b"\0\1\0\0\0\0\0\0" + b"\3web\0\0\1\0\1trailing",
        HEAD + b"\0\1\0\0\0\0\0\3" + b"\3web\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 3,
        HEAD + b"\0\1\0\0\0\0\0\2" + b"\3web\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2,
        HEAD + b"\0\1\0\0\0\0\0\1" + b"\3web\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\xff\xff",
    ],
)
async def test_malformed_questions(server, packet, caplog) -> None:
    reply = await exchange(server, packet)
    assert reply == b"\x12\x34\x81\x81" + b"\0" * 8
    assert not caplog.records


async def test_a_question_that_points_into_its_header(server, table) -> None:
    """The id and the flags read as the name "a": what would be echoed as the question is something else."""
    reply = await exchange(server, b"\1a\0\0" + b"\0\1\0\0\0\0\0\0" + b"\xc0\x00\0\1\0\1")
    assert reply == b"\1a\x80\x81" + b"\0" * 8
    assert "a" not in {question.name for question in table.asked}


async def test_a_resolver_that_fails_fails_that_question_only(server, table, caplog) -> None:
    table.answers["bad"] = RuntimeError("broken")
    table.answers["worse"] = Answer(addresses=("not an address",))
    with caplog.at_level(logging.ERROR):
        assert (await ask(server, "bad")).rcode() == dns.rcode.SERVFAIL
        assert (await ask(server, "worse")).rcode() == dns.rcode.SERVFAIL
        assert texts(await ask(server, "web")) == ["10.0.1.2"]
    assert len(caplog.records) == 2


async def test_the_root_and_strange_names(server, table) -> None:
    table.default = Answer(refused=True)
    assert (await ask(server, ".", "NS")).rcode() == dns.rcode.NXDOMAIN
    assert table.asked[-1].name == ""
    table.answers[""] = Answer(addresses=("10.0.0.1",))
    assert texts(await ask(server, ".", "A")) == ["10.0.0.1"]
    strange = dns.name.Name([b"a.b\0\xff", b"C", b""])
    assert (await ask(server, strange)).rcode() == dns.rcode.NXDOMAIN
    assert table.asked[-1].name == r"a\.b\000\255.c"


async def test_two_thousand_at_once(server) -> None:
    """All are out before the first answer is read; what the socket's buffer had no room for is asked again."""
    wanted = {name: dns.message.make_query(name, "A", id=0).to_wire()[2:] for name in ("web", "many", "gone")}
    kinds = list(wanted)
    clients = [Crowd(number, kinds) for number in range(20)]
    loop = asyncio.get_running_loop()
    for client in clients:
        await loop.create_datagram_endpoint(
            lambda client=client: client, local_addr=(address(), 0), remote_addr=(server, PORT)
        )
    async with asyncio.timeout(20):
        while missing := [client for client in clients if client.missing]:
            for client in missing:
                for number in client.missing:
                    client.transport.sendto(number.to_bytes(2) + wanted[client.kind(number)])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(client.done.wait() for client in clients)), 1)
    for client in clients:
        client.transport.close()


COUNTS = {"web": 1, "many": 8, "gone": 0}


class Crowd(asyncio.DatagramProtocol):
    """A hundred questions of one client, and which of them have their answer."""

    def __init__(self, offset: int, kinds: list[str]) -> None:
        self.offset, self.kinds = offset, kinds
        self.missing = set(range(100))
        self.done = asyncio.Event()

    def kind(self, number: int) -> str:
        return self.kinds[(self.offset + number) % len(self.kinds)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        reply = dns.message.from_wire(data)
        assert len(texts(reply)) == COUNTS[self.kind(reply.id)]
        self.missing.discard(reply.id)
        if not self.missing:
            self.done.set()
