"""Names that are not ours: others are asked, and whatever they do, the client gets an answer in time."""

from __future__ import annotations

import asyncio
import time

import dns.flags
import dns.message
import dns.rcode
import pytest

from swarmpy.adapters.dns import Limits, NameServers
from swarmpy.adapters.dns.upstream import ResolvConf, Upstream
from swarmpy.model.links import Answer
from tests.dns.servers import OWN, PORT, Other, address, answering, ask, exchange, texts


@pytest.fixture
async def others():
    started: list[Other] = []

    async def start(script) -> Other:
        started.append(await Other(script).start())
        return started[-1]

    yield start
    for one in started:
        await one.stop()


def write(resolv_conf, *servers: str) -> None:
    resolv_conf.write_text("# made by a test\nsearch x\n" + "".join(f"nameserver {s}\n" for s in servers))


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_unknown_names_are_asked_of_the_nodes_servers(server, others, resolv_conf, tcp) -> None:
    other = await others(answering("192.0.2.7"))
    write(resolv_conf, other.address)
    for _ in range(5):
        query = await ask(server, "eXample.org", tcp=tcp)
        assert texts(query) == ["192.0.2.7"]
    ids = {seen.id for seen in other.seen}
    assert len(ids) >= 4
    assert len({port for _, port in other.peers}) >= 4
    assert str(other.seen[0].question[0].name) == "eXample.org."


async def test_a_changed_resolv_conf_counts_from_then_on(server, others, resolv_conf) -> None:
    first, second = await others(answering("192.0.2.1")), await others(answering("192.0.2.2"))
    assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL  # there is no file yet
    write(resolv_conf, first.address)
    assert texts(await ask(server, "example.org")) == ["192.0.2.1"]
    write(resolv_conf, second.address)
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]
    resolv_conf.unlink()
    assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL


async def test_an_answer_may_name_its_servers(server, table, others, resolv_conf) -> None:
    node, special = await others(answering("192.0.2.1")), await others(answering("192.0.2.2"))
    write(resolv_conf, node.address)
    table.answers["special.org"] = Answer(forward=True, upstream=(special.address,))
    assert texts(await ask(server, "special.org")) == ["192.0.2.2"]
    assert not node.seen


async def test_what_the_server_says_is_passed_on(server, others, resolv_conf) -> None:
    def script(query, tcp):
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    other = await others(script)
    write(resolv_conf, other.address)
    assert (await ask(server, "nowhere.org")).rcode() == dns.rcode.NXDOMAIN
    assert len(other.seen) == 1


async def test_a_silent_server_is_not_waited_for_alone_and_then_asked_last(
    server, others, resolv_conf
) -> None:
    silent, well = await others(lambda query, tcp: None), await others(answering("192.0.2.2"))
    write(resolv_conf, silent.address, well.address)
    began = time.monotonic()
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]
    assert 0.15 < time.monotonic() - began < 3
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]
    assert len(silent.seen) == 1


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_after_a_poor_reply_the_next_is_asked_at_once(server, others, resolv_conf, code) -> None:
    def script(query, tcp):
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.from_text(code))
        return reply

    poor, well = await others(script), await others(answering("192.0.2.2"))
    write(resolv_conf, poor.address, well.address)
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]
    write(resolv_conf, poor.address)
    assert (await ask(server, "example.org")).rcode() == dns.rcode.from_text(code)


async def test_a_server_that_is_not_there(server, others, resolv_conf) -> None:
    well = await others(answering("192.0.2.2"))
    write(resolv_conf, address(), "not-an-address", well.address)
    began = time.monotonic()
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]
    write(resolv_conf, address())
    assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL
    assert time.monotonic() - began < 3


async def test_when_all_are_silent_the_failure_comes_in_time(server, others, resolv_conf, upstream) -> None:
    upstream._deadline = 1.0
    silent = await others(lambda query, tcp: None)
    write(resolv_conf, silent.address, silent.address)
    began = time.monotonic()
    assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL
    assert 0.9 < time.monotonic() - began < 3.5
    assert 1 <= len(silent.seen) <= 2


async def test_forged_and_broken_replies_are_waited_through(server, others, resolv_conf) -> None:
    def script(query, tcp):
        good = answering("192.0.2.2")(query, tcp)
        forged = answering("6.6.6.6")(query, tcp).to_wire()
        otherwise = dns.message.make_query("evil.org", "A", id=query.id)
        wrong = answering("6.6.6.6")(otherwise, tcp).to_wire()
        number = ((query.id + 1) & 0xFFFF).to_bytes(2)
        return [b"", b"x", query.to_wire(), number + forged[2:], wrong, good.to_wire()]

    other = await others(script)
    write(resolv_conf, other.address)
    assert texts(await ask(server, "example.org")) == ["192.0.2.2"]


def large(query, tcp):
    reply = dns.message.make_response(query)
    if not tcp:
        reply.flags |= dns.flags.TC
        return reply
    rrset = reply.find_rrset(reply.answer, query.question[0].name, 1, 1, create=True)
    for number in range(200):
        rrset.add(dns.rdata.from_text("IN", "A", f"192.0.2.{number}"), 60)
    return reply


async def test_a_reply_that_was_cut_is_fetched_by_tcp(server, others, resolv_conf) -> None:
    other = await others(large)
    write(resolv_conf, other.address)
    assert len(texts(await ask(server, "example.org", tcp=True))) == 200
    reply = await ask(server, "example.org", use_edns=-1)
    assert reply.flags & dns.flags.TC
    assert not reply.answer
    assert len(other.seen) == 4


async def test_a_cut_reply_is_better_than_none(server, others, resolv_conf) -> None:
    other = await others(lambda query, tcp: None if tcp else large(query, tcp))
    write(resolv_conf, other.address)
    reply = await ask(server, "example.org")
    assert reply.flags & dns.flags.TC
    assert reply.rcode() == dns.rcode.NOERROR


async def test_questions_under_way_are_bounded(table, others, resolv_conf) -> None:
    silent = await others(lambda query, tcp: None)
    write(resolv_conf, silent.address)
    limits = Limits(pending=4, pending_client=3)
    upstream = Upstream(port=PORT, deadline=60, stagger=60)
    names = NameServers(table, resolv_conf=resolv_conf, port=PORT, upstream=upstream, limits=limits)
    where = address()
    await names.serve("n", OWN, [where])
    one, two = address(), address()
    waiting = [asyncio.create_task(ask(where, f"a{n}.org", source=one)) for n in range(3)]
    while len(silent.seen) < 3:
        await asyncio.sleep(0.01)
    assert (await ask(where, "more.org", source=one)).rcode() == dns.rcode.SERVFAIL
    waiting.append(asyncio.create_task(ask(where, "b.org", source=two)))
    while len(silent.seen) < 4:
        await asyncio.sleep(0.01)
    assert (await ask(where, "c.org", source=two)).rcode() == dns.rcode.SERVFAIL
    assert texts(await ask(where, "web", source=two)) == ["10.0.1.2"]
    assert len(silent.seen) == 4
    assert not any(task.done() for task in waiting)
    await names.stop()
    assert not +names._pending
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_stopping_does_not_wait_for_others(table, others, resolv_conf) -> None:
    silent = await others(lambda query, tcp: None)
    write(resolv_conf, silent.address)
    names = NameServers(table, resolv_conf=resolv_conf, port=PORT, upstream=Upstream(port=PORT, deadline=60))
    where = address()
    await names.serve("n", OWN, [where])
    asking = asyncio.create_task(exchange(where, dns.message.make_query("a.org", "A").to_wire()))
    while not silent.seen:
        await asyncio.sleep(0.01)
    await asyncio.wait_for(names.stop(), 2)
    await asking


def test_a_resolv_conf_in_every_shape(tmp_path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(
        b"nameserver 1.1.1.1 # one\n;nameserver 2\nnameserver\n\xff\n nameserver ::1\nnameserverx 3\n"
    )
    assert ResolvConf(path).servers() == ("1.1.1.1", "::1")
    path.write_text("nameserver 9.9.9.9\n" * 100)
    assert len(ResolvConf(path).servers()) == 8
    assert ResolvConf(tmp_path).servers() == ()
