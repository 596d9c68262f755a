"""Three members of etcd on loopback: real processes, their files on the disk, mutual TLS between them.

What belongs here: making, asking and ending them. What does not: the load (puts.py).
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.bench.puts import EtcdClient
from tests.bench.raft_members import ENOUGH, free_ports, stop

MEMBERS = 3


def require() -> str:
    """Where etcd is. Raises SystemExit with what to install."""
    found = shutil.which("etcd")
    if found is None:
        raise SystemExit(
            "etcd is what we are compared with, and it is missing here: apt-get install etcd-server"
        )
    return found


class Etcd:
    """A cluster in `folder`, with etcd's own settings. Use as a context."""

    name, client = "etcd", EtcdClient

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._ports = free_ports(MEMBERS)

    def __enter__(self) -> Etcd:
        self._folder.mkdir()
        certificates(self._folder)
        peers = free_ports(MEMBERS)
        cluster = ",".join(f"m{number}=https://127.0.0.1:{port}" for number, port in enumerate(peers))
        for number, port in enumerate(peers):
            client, peer = f"http://127.0.0.1:{self._ports[number]}", f"https://127.0.0.1:{port}"
            log = (self._folder / f"m{number}.log").open("wb")
            self._running.append(subprocess.Popen([
                "setpriv", "--pdeathsig", "KILL", require(), "--name", f"m{number}",
                "--data-dir", str(self._folder / f"m{number}"),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", cluster, "--initial-cluster-state", "new", "--peer-client-cert-auth",
                "--peer-trusted-ca-file", str(self._folder / "ca.pem"),
                "--peer-cert-file", str(self._folder / "cert.pem"), "--peer-key-file", str(self._folder / "key.pem"),
            ], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._folder))  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._running)

    def leader(self) -> int:
        """The port at which the leader takes writes. Raises TimeoutError."""
        end = time.monotonic() + ENOUGH
        while time.monotonic() < end:
            for port in self._ports:
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", b"{}")
                try:
                    with urllib.request.urlopen(request, timeout=2) as reply:
                        said = json.load(reply)
                except OSError:
                    continue
                if said.get("leader") == said["header"]["member_id"]:
                    return port
            time.sleep(0.1)
        raise TimeoutError(f"no leader of etcd; its members' logs are in {self._folder}")


def certificates(folder: Path) -> None:
    """A CA, and one certificate for all members: they share an address."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(name: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder(issuer_name=_name("ca"), subject_name=_name(name), public_key=public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(
            now - datetime.timedelta(hours=1)
        )
        return made.not_valid_after(now + datetime.timedelta(days=1))

    root = builder("ca", root_key.public_key()).add_extension(
        x509.BasicConstraints(True, None), critical=True
    )
    leaf = builder("member", key.public_key())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    leaf = leaf.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = leaf.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(pem))
    (folder / "cert.pem").write_bytes(leaf.sign(root_key, hashes.SHA256()).public_bytes(pem))
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(text)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
