"""The certificate service of the leader: lets machines in with a token, renews nodes' certificates.

What belongs here: the two calls and their checks against the cluster's state. What does not: cryptography
(pki/), what a new node becomes (plan/admission/node).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from swarmpy.manager.claims import usable_address
from swarmpy.manager.dispatcher import managers_of
from swarmpy.model import messages as m
from swarmpy.model.commands import AnyCommand, JoinNode, RenewCertificate, Result
from swarmpy.model.errors import Refusal
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes
from swarmpy.model.lifecycle import Role
from swarmpy.model.objects import Cluster
from swarmpy.pki.ca import Authority
from swarmpy.pki.errors import PkiError
from swarmpy.pki.tokens import role_of_token
from swarmpy.ports import Body, Clock, Entropy, Peer, RefusedError
from swarmpy.state.snapshot import Snapshot

Submit = Callable[[AnyCommand], Awaitable[Result]]


class CertificateService:
    """Serves `join` and `ca.renew` while this manager leads."""

    def __init__(self, submit: Submit, world: Callable[[], Snapshot], clock: Clock, entropy: Entropy) -> None:
        self._submit, self._world, self._clock, self._entropy = submit, world, clock, entropy

    async def join(self, peer: Peer, body: Body) -> Body:
        """`join`: {token, csr, address, hostname, availability, data_address, listen_port} -> {node_id,
        cluster_id, role, certificate, root, managers}."""
        cluster = self._cluster()
        try:
            role = role_of_token(
                _text(body, "token"),
                {"worker": cluster.worker_token, "manager": cluster.manager_token},
            )
            node_id = from_bytes(self._entropy.token(ENTROPY_BYTES))
            certificate = self._issue(cluster, _text(body, "csr"), node_id, role)
        except PkiError as error:
            raise RefusedError("InvalidArgument", str(error)) from None
        await self._commit(
            JoinNode(
                id=node_id,
                role=Role.MANAGER if role == "manager" else Role.WORKER,
                address=usable_address(_text(body, "address", "")) or peer.address,
                certificate=certificate,
                hostname=_text(body, "hostname", "")[:253],
                availability=_text(body, "availability", "active"),
                data_address=_data_address(_text(body, "data_address", "")),
                listen_port=_port(body.get("listen_port", 0)),
            )
        )
        return {
            "node_id": node_id,
            "cluster_id": cluster.id,
            "role": role,
            "certificate": certificate,
            "root": cluster.root_cert,
            "address": usable_address(_text(body, "address", "")) or peer.address,
            "managers": [m.to_body(one) for one in managers_of(self._world())],
        }

    async def renew(self, peer: Peer, body: Body) -> Body:
        """`ca.renew`: {csr} -> {certificate, root, role}, for the caller's node in its present role."""
        cluster = self._cluster()
        node = self._world().nodes.get(peer.node_id)
        if node is None:
            raise RefusedError("NotFound", f"node {peer.node_id} is not a member of this cluster")
        try:
            certificate = self._issue(cluster, _text(body, "csr"), node.id, node.role.word)
        except PkiError as error:
            raise RefusedError("InvalidArgument", str(error)) from None
        await self._commit(RenewCertificate(node=node.id, certificate=certificate))
        return {"certificate": certificate, "root": cluster.root_cert, "role": node.role.word}

    def _cluster(self) -> Cluster:
        cluster = self._world().cluster
        if cluster is None:
            raise RefusedError("Unavailable", "the cluster is still being initialised; try again")
        return cluster

    def _issue(self, cluster: Cluster, csr: str, node_id: str, role: str) -> str:
        authority = Authority(cluster.root_cert.encode(), cluster.root_key.encode())
        issued = authority.issue(
            csr.encode(), node_id, role, cluster.id, self._clock.now(), cluster.view.certificate_ns
        )
        return issued.decode()

    async def _commit(self, command: AnyCommand) -> None:
        try:
            await self._submit(command)
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None


def _text(body: Body, key: str, default: str | None = None) -> str:
    value = body.get(key, default)
    if not isinstance(value, str):
        raise RefusedError("InvalidArgument", f"{key} must be a text")
    return value


def _data_address(text: str) -> str:
    """The address of a VXLAN endpoint, "" for none. Raises RefusedError for what none could be."""
    if text and not usable_address(text):
        raise RefusedError("InvalidArgument", f"invalid data path address {text[:64]!r}: an IP is expected")
    return usable_address(text)


def _port(value: object) -> int:
    """A port, 0 for none. Raises RefusedError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise RefusedError("InvalidArgument", "listen_port must be a number from 1 to 65535")
    return value
