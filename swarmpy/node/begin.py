"""The beginning of a cluster: its CA, tokens and first identity, and the command that records them."""

from __future__ import annotations

from dataclasses import dataclass

from swarmpy.model.commands import InitCluster
from swarmpy.model.errors import InvalidArgument
from swarmpy.model.fabric import sealed_port
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes
from swarmpy.model.objects import Cluster, Description, KeyRing
from swarmpy.node import addresses
from swarmpy.node.record import Record
from swarmpy.pki.ca import Authority
from swarmpy.pki.identity import NodeIdentity, make_key_and_csr
from swarmpy.pki.tokens import make_token
from swarmpy.plan.admission.cluster import checked_pools, validate_spec
from swarmpy.plan.probing import PORT as PROBES
from swarmpy.ports import Clock, Entropy, InitRequest

AVAILABILITIES = ("active", "pause", "drain")


@dataclass(frozen=True, slots=True)
class Made:
    """All that a new cluster begins with."""

    node_id: str
    cluster: Cluster
    identity: NodeIdentity


def cluster(clock: Clock, entropy: Entropy, request: InitRequest) -> Made:
    """Make a cluster. Raises InvalidArgument where the request asks for what cannot be."""
    _validate(request)
    size = request.subnet_size or 24
    now = clock.now()
    authority = Authority.create(now)
    cluster_id = from_bytes(entropy.token(ENTROPY_BYTES))
    node_id = from_bytes(entropy.token(ENTROPY_BYTES))
    draft = Cluster(id=cluster_id, spec=request.spec)
    key, csr = make_key_and_csr()
    certificate = authority.issue(csr, node_id, "manager", cluster_id, now, draft.view.certificate_ns)
    made = Cluster(
        id=cluster_id,
        spec=request.spec,
        root_cert=authority.cert_pem.decode(),
        root_key=authority.key_pem.decode(),
        worker_token=make_token(authority.digest(), entropy.token),
        manager_token=make_token(authority.digest(), entropy.token),
        address_pools=checked_pools(request.address_pools or ("10.0.0.0/8",), size),
        subnet_size=size,
        data_path_port=request.data_path_port or 4789,
        network_keys=KeyRing(seed=entropy.token(32).hex()),
    )
    return Made(node_id, made, NodeIdentity(certificate, key, authority.cert_pem))


def command(
    made: Made, request: InitRequest, kept: Record, address: str, data_address: str, hostname: str
) -> InitCluster:
    """The first command of the cluster. The rest of the node's description follows with its first session."""
    return InitCluster(
        cluster=made.cluster,
        node_id=made.node_id,
        address=address,
        manager_address=kept.advertise,
        certificate=made.identity.cert_pem.decode(),
        description=Description(hostname=hostname),
        availability=request.availability,
        data_address=data_address,
        listen_port=addresses.split(kept.listen, addresses.PORT)[1],
    )


def _validate(request: InitRequest) -> None:
    validate_spec(request.spec)
    if request.availability not in AVAILABILITIES:
        raise InvalidArgument(f"invalid Availability: {request.availability!r} is not active, pause or drain")
    if request.auto_lock:
        raise InvalidArgument("autolock is not supported by this version: leave --autolock out")
    if request.data_path_port and not 1024 <= request.data_path_port <= 49151:
        raise InvalidArgument("data path port must be between 1024 and 49151")
    if PROBES in {request.data_path_port, sealed_port(request.data_path_port)}:
        raise InvalidArgument(
            f"data path port {request.data_path_port} cannot be: the nodes ask each other at UDP port "
            f"{PROBES}, and encrypted networks use the port after the data path port; choose another one"
        )
    checked_pools(request.address_pools, request.subnet_size or 24)
