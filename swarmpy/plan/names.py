"""Names: what a container's question for a name is answered, by the tables of its networks.

Docker's rules: a service's name or alias is its virtual address (with dnsrr, or without one, the addresses of
its serving tasks); `tasks.NAME` always the tasks'; a container's name or host name its own address;
`NAME.NETWORK` the same in that network. Beyond Docker: `SLOT.SERVICE` is the task in that slot. A name that
is known nowhere is asked of others, unless the client has no way out.
What does not belong here: the protocol (adapters/dns).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from swarmpy.model.fabric import Endpoint, ServiceEntry, Table
from swarmpy.model.links import Answer, Question
from swarmpy.model.messages import Assigned
from swarmpy.model.specs import template_view

TTL = 5
"""Seconds for which a client may keep an answer: Docker says 600, and clients that believed it went on
asking tasks that were gone."""


class _Names:
    """The names of one network."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.clients: dict[str, Endpoint] = {
            address: one for one in table.endpoints for address in one.addresses
        }
        self._services: dict[str, list[ServiceEntry]] = {}
        self._tasks: dict[str, list[Endpoint]] = {}
        self._containers: dict[str, list[Endpoint]] = {}
        for entry in table.services:
            for name in {entry.name, *entry.aliases}:
                self._services.setdefault(name.lower(), []).append(entry)
        for one in table.endpoints:
            if one.serving:
                self._tasks.setdefault(one.service_id, []).append(one)
        services = {entry.id: entry.name for entry in table.services}
        for one in table.endpoints:
            names = {one.name, one.hostname, one.id, *(() if one.service_id else one.aliases)}
            if one.service_id in services and one.slot:
                names.add(f"{one.slot}.{services[one.service_id]}")
            for name in names - {""}:
                self._containers.setdefault(name.lower(), []).append(one)

    def find(self, name: str) -> list[str] | None:
        """All addresses of a name; None where the network does not know it."""
        if name.startswith("tasks."):
            entries = self._services.get(name.removeprefix("tasks."))
            return None if entries is None else self._serving(entries)
        entries = self._services.get(name)
        if entries is not None:
            found: list[str] = []
            for entry in entries:
                found += entry.vips or self._serving([entry])
            return found
        containers = self._containers.get(name)
        if containers is None:
            return None
        return [address for one in containers for address in one.addresses]

    def _serving(self, entries: Iterable[ServiceEntry]) -> list[str]:
        return [
            address for entry in entries for one in self._tasks.get(entry.id, ()) for address in one.addresses
        ]


def upstreams(tasks: Iterable[Assigned]) -> dict[str, tuple[str, ...]]:
    """The name servers that tasks asked for, by task id."""
    found: dict[str, tuple[str, ...]] = {}
    for one in tasks:
        dns = template_view(one.template).container.dns_config
        if dns is not None and dns.nameservers:
            found[one.id] = dns.nameservers
    return found


class Resolver:
    """Answers questions by the tables given."""

    def __init__(self, tables: Mapping[str, Table], upstreams: Mapping[str, tuple[str, ...]]) -> None:
        """`upstreams`: the name servers that a task asked for, by task id."""
        ordered = sorted(tables.values(), key=lambda one: (one.ingress, one.name))
        self._networks = {one.id: _Names(one) for one in ordered}
        self._upstreams = upstreams
        self._homes: dict[str, list[_Names]] = {}
        for names in self._networks.values():
            for endpoint_id in {one.id for one in names.table.endpoints}:
                self._homes.setdefault(endpoint_id, []).append(names)

    def answer(self, question: Question) -> Answer:
        """The answer to one question."""
        here = self._networks.get(question.network_id)
        if here is None:
            return Answer(refused=True)
        client = here.clients.get(question.client)
        homes = self._homes.get(client.id, [here]) if client is not None else [here]
        if question.kind == "PTR":
            return self._reverse(homes, question.name, client)
        found = _search(homes, question.name)
        if found is None:
            return self._elsewhere(homes, client)
        wanted = {"A": False, "AAAA": True}.get(question.kind)
        addresses = tuple(one for one in found if (":" in one) == wanted) if wanted is not None else ()
        return Answer(addresses=tuple(dict.fromkeys(addresses)), ttl=TTL)

    def _elsewhere(self, homes: list[_Names], client: Endpoint | None) -> Answer:
        if all(home.table.internal for home in homes):
            return Answer(refused=True)
        return Answer(forward=True, upstream=self._upstreams.get(client.id, ()) if client is not None else ())

    def _reverse(self, homes: list[_Names], name: str, client: Endpoint | None) -> Answer:
        address = _reversed(name)
        for home in homes:
            endpoint = home.clients.get(address)
            if endpoint is not None:
                return Answer(name=f"{endpoint.name}.{home.table.name}", ttl=TTL)
            for entry in home.table.services:
                if address in entry.vips:
                    return Answer(name=f"{entry.name}.{home.table.name}", ttl=TTL)
        return self._elsewhere(homes, client)


def _search(homes: list[_Names], name: str) -> list[str] | None:
    """The first network that knows the name answers; then `NAME.NETWORK` is tried."""
    for home in homes:
        found = home.find(name)
        if found is not None:
            return found
    for home in homes:
        suffix = "." + home.table.name.lower()
        if name.endswith(suffix):
            found = home.find(name.removesuffix(suffix))
            if found is not None:
                return found
    return None


def _reversed(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, "" for none."""
    labels = name.split(".")
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        text = ".".join(reversed(labels[:4]))
    elif labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
        digits = "".join(reversed(labels[:32]))
        text = ":".join(digits[place : place + 4] for place in range(0, 32, 4))
    else:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
