"""A small swarm daemon for tests of the command line: HTTP on a unix socket over an in-memory cluster.

It keeps services, tasks and nodes consistent (versions, previous specs, names), records every request, and
moves tasks a few states on each time they are listed. It answers both `swarmpy` and the real `docker` client.
"""

from __future__ import annotations

import copy
import json
import re
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.cli.fake_cluster import DIGEST, INACTIVE, NODE_M, NODE_W, Cluster, Refused, matching

__all__ = ["DIGEST", "NODE_M", "NODE_W", "FakeDaemon"]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FakeDaemon

    def log_message(self, *args: Any) -> None:
        """Nothing: requests are recorded instead."""

    def address_string(self) -> str:
        return "unix"

    def handle_one(self) -> None:
        cluster = self.server.cluster
        url = urlsplit(self.path)
        path = re.sub(r"\A/v1\.\d+/", "/", unquote(url.path))
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw.strip() else None
        with self.server.lock:
            cluster.requests.append({"method": self.command, "path": path, "query": query, "body": copy.deepcopy(body),
                                     "headers": dict(self.headers)})  # fmt: skip
            try:
                status, answer = self.route(cluster, path, query, body)
            except Refused as refused:
                status, answer = refused.status, {"message": str(refused)}
        if isinstance(answer, list) and answer and isinstance(answer[0], bytes):
            return self.send_pieces(answer)
        text = path == "/_ping"
        data = b"OK" if text else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    do_GET = do_POST = do_DELETE = do_HEAD = handle_one

    def send_pieces(self, pieces: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")  # as the daemon does
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if self.server.hold_streams is not None:
            self.wfile.flush()
            self.server.streaming.set()
            self.server.hold_streams.wait(30)
        self.wfile.write(b"0\r\n\r\n")

    def route(self, cluster: Cluster, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if path == "/_ping":
            return 200, "OK"
        if path == "/info":
            return 200, cluster.info()
        if path == "/swarm/init":
            if cluster.active:
                raise Refused(503, "This node is already part of a swarm.")
            cluster.active = True
            return 200, NODE_M
        if path == "/swarm/join":
            if body["JoinToken"] != cluster.tokens["Worker"]:
                raise Refused(400, "rpc error: code = InvalidArgument desc = A valid join token is necessary to join "
                                   "this cluster")  # fmt: skip
            cluster.active = cluster.role_after_join == "manager"
            return 200, None
        if path.startswith("/distribution/"):
            name = path[len("/distribution/") : -len("/json")]
            if name not in cluster.registry:
                raise Refused(404, f"manifest for {name} not found")
            return 200, cluster.registry[name]
        if not cluster.active:
            raise Refused(503, INACTIVE)
        for prefix, serve in (("/swarm", self.serve_swarm), ("/nodes", self.serve_nodes),
                              ("/services", self.serve_services), ("/tasks", self.serve_tasks),
                              ("/networks", self.serve_networks)):  # fmt: skip
            if path == prefix or path.startswith(prefix + "/"):
                return serve(cluster, path[len(prefix) :].strip("/"), query, body)
        if path == "/swarmpy/v1/address-pools":
            if "bad" in body["Add"]:
                raise Refused(400, "rpc error: code = InvalidArgument desc = invalid address pool 'bad'")
            cluster.pools += body["Add"]
            cluster.next()
            return 200, None
        if path == "/swarmpy/v1/explain":
            return 200, self.server.explanation
        if path == "/swarmpy/v1/net/doctor":
            return 200, self.server.examination
        raise Refused(404, "page not found")

    def serve_swarm(self, cluster: Cluster, rest: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if rest == "leave":
            if query.get("force") not in ("1", "true"):
                raise Refused(
                    503, "You are attempting to leave the swarm on a node that is participating as a manager."
                )
            cluster.active = False
            return 200, None
        if rest == "update":
            if query["version"] != str(cluster.index):
                raise Refused(500, "rpc error: code = Unknown desc = update out of sequence")
            cluster.swarm_spec = body
            for role in ("Worker", "Manager"):
                if query.get(f"rotate{role}Token") == "true":
                    cluster.tokens[role] += "2"
            cluster.next()
            return 200, None
        if rest == "unlockkey":
            return 200, {"UnlockKey": "SWMKEY-1-xyz"}
        return 200, cluster.swarm()

    def serve_nodes(self, cluster: Cluster, rest: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if not rest:
            return 200, matching(list(cluster.nodes.values()), query)
        found = cluster.node(rest.split("/", maxsplit=1)[0])
        if self.command == "DELETE":
            if found["Status"]["State"] == "ready" and not query.get("force"):
                raise Refused(400, f"rpc error: code = FailedPrecondition desc = node {found['ID']} is not down and "
                                   "can't be removed")  # fmt: skip
            del cluster.nodes[found["ID"]]
            return 200, None
        if rest.endswith("/update"):
            if query["version"] != str(found["Version"]["Index"]):
                raise Refused(500, "rpc error: code = Unknown desc = update out of sequence")
            found["Spec"] = body
            found["Version"] = {"Index": cluster.next()}
            return 200, None
        return 200, found

    def serve_services(
        self, cluster: Cluster, rest: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if not rest:
            found = matching(list(cluster.services.values()), query)
            if query.get("status"):
                found = [{**one, "ServiceStatus": cluster.counts(one["ID"])} for one in found]
            return 200, found
        if rest == "create":
            return 201, cluster.create(body)
        reference, _, action = rest.partition("/")
        if action == "update":
            return 200, cluster.update(reference, body, query)
        service = cluster.service(reference)
        if action == "logs":
            return 200, self.frames(cluster)
        if self.command == "DELETE":
            del cluster.services[service["ID"]]
            cluster.tasks = {
                key: one for key, one in cluster.tasks.items() if one["ServiceID"] != service["ID"]
            }
            return 200, None
        return 200, service

    def serve_networks(
        self, cluster: Cluster, rest: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if not rest:
            return 200, list(cluster.networks.values())
        if rest == "create":
            return 201, {"Id": f"n{cluster.next():024d}", "Warning": cluster.network_warning}
        if rest == "prune":
            return 200, {"NetworksDeleted": cluster.pruned}
        reference, _, action = rest.partition("/")
        if self.command == "DELETE":
            cluster.remove_network(reference)
            return 204, None
        found = cluster.network(reference)
        if query.get("scope", found["Scope"]) != found["Scope"]:
            raise Refused(404, f"network {reference} not found")
        return 200, (None if action else found)

    def serve_tasks(self, cluster: Cluster, rest: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if not rest:
            if "_up-to-date" in query.get("filters", ""):
                cluster.advance()
            return 200, matching(list(cluster.tasks.values()), query)
        task_id, _, action = rest.partition("/")
        if task_id not in cluster.tasks:
            raise Refused(404, f"task {task_id} not found")
        return (200, self.frames(cluster)) if action == "logs" else (200, cluster.tasks[task_id])

    @staticmethod
    def frames(cluster: Cluster) -> list[bytes]:
        return [struct.pack(">BxxxI", stream, len(data)) + data for stream, data in cluster.logs] or [b""]


class FakeDaemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The daemon, serving from a thread of this process until `close`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.cluster = Cluster()
        self.lock = threading.Lock()
        self.hold_streams: threading.Event | None = None
        self.streaming = threading.Event()
        self.explanation: Any = {}
        self.examination: Any = {}
        self.host = f"unix://{path}"
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle (Ctrl-C) is no error of the daemon's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        if self.hold_streams is not None:
            self.hold_streams.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)

    def sent(self, method: str, path: str) -> list[dict[str, Any]]:
        """The recorded requests of that method whose path matches the pattern."""
        return [
            one
            for one in self.cluster.requests
            if one["method"] == method and re.fullmatch(path, one["path"])
        ]
