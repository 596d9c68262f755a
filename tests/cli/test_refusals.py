"""What goes wrong, what it says, and the exit code: compared with docker where docker has the command."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest

from swarmpy.cli import start as starting
from swarmpy.cli.client import DEFAULT_HOST, daemon_host, socket_path
from swarmpy.cli.tables import CommandError
from tests.cli.conftest import ROOT, Run, start
from tests.cli.fake_swarm_daemon import NODE_M, FakeDaemon

WRONG = """
service ls --bogus
service ls -z
service ls -qz
service ls --quiet=maybe
service ls extra
service ls -f foo
service bogus
service create
service create --name
service create --replicas x img
service create --replicas -1 img
service create --replicas 18446744073709551616 img
service create --limit-memory xx img
service create --limit-cpu x img
service create --limit-cpu 0.0000000001 img
service create --limit-pids x img
service create --mount foo img
service create --mount type=volume img
service create --mount type=bind,source=/a,target=/b,volume-nocopy img
service create --mount type=tmpfs,target=/t,tmpfs-size=x img
service create -p foo img
service create -p 80/foo img
service create -p target=80,mode=x img
service create -p published=80 img
service create -p target=x img
service create -p 80-81:90-92 img
service create -p target=80,bogus=1 img
service create --update-delay 5 img
service create --update-delay x img
service create --update-delay 5y img
service create --update-max-failure-ratio x img
service create --health-interval -5s img
service create --ulimit x img
service create --ulimit foo=1 img
service create --ulimit nofile=5:3 img
service create -e =x img
service create --label = img
service create --dns foo img
service create --host foo img
service create --placement-pref x img
service create --placement-pref a=b img
service create --generic-resource x img
service create --env-file /nope img
service create --mode global --replicas 2 img
service create --max-concurrent 2 img
service create --mode global --replicas-max-per-node 2 img
service create --mode global-job --update-delay 5s img
service create --no-healthcheck --health-cmd x img
service ps
service rm
service scale a
service update
service update --rollback --force web
service update --generic-resource-rm nope web
service update --replicas 3 glob
service update --no-healthcheck --health-cmd x web
service update --mount-add type=tmpfs,target=/t --mount-add type=tmpfs,target=/t web
service rollback web
service logs
service logs --since foo web
service inspect --pretty --format x web
node update
node promote
node ls extra
swarm join
swarm join a b
swarm join --availability foo a:1
swarm init --availability foo
swarm join-token foo
swarm bogus
service create --network nope img
service create --network bridge img
service create --network "" img
service create --network foo=bar img
service create --network name=x,alias img
service create --network alias=b img
service create --network name=x,driver-opt=foo img
service update --network-add nope web
service update --network-rm nope web
service update --network-add back9 --network-add back9 web
network create
network create a b
network create --subnet
network create --label =x y
network create --ipv6=x y
network create --gateway 10.1.0.1 x
network create --ip-range 10.1.0.0/25 x
network create --subnet 10.1.0.0/24 --subnet 10.1.0.0/25 x
network create --subnet 10.1.0.0/25,10.1.0.0/24 x
network create --subnet 10.1.0.0/24 --ip-range foo x
network create --subnet 10.1.0.0/24 --gateway foo x
network create --subnet 10.1.0.0/24 --gateway 10.2.0.1 x
network create --subnet 10.1.0.0/24,10.2.0.0/24 --gateway 10.1.0.1,10.1.0.2 x
network create --subnet 10.1.0.0/24,10.2.0.0/24 --ip-range 10.1.0.0/25,10.1.0.128/25 x
network create --subnet 10.1.0.0/24 --ip-range 10.2.0.0/25 x
network create --subnet 10.1.0.0/24 --aux-address a=10.2.0.1 x
network create --subnet 10.1.0.0/24 --aux-address a=foo x
network create --aux-address a=10.1.0.1 x
network inspect
network ls extra
network ls --filter foo
network connect back9
network connect nope c
network disconnect nope
network bogus
""".strip().splitlines()


def _as_swarmpy(text: str) -> str:
    return text.replace("See 'docker", "Run 'docker").replace("docker", "swarmpy")


@pytest.mark.parametrize("line", WRONG)
def test_refuses_as_docker_does(line: str, daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    daemon.cluster.create(
        {"Name": "web", "TaskTemplate": {"ContainerSpec": {}}, "Mode": {"Replicated": {"Replicas": 1}}}
    )
    daemon.cluster.create({"Name": "glob", "TaskTemplate": {"ContainerSpec": {}}, "Mode": {"Global": {}}})
    theirs, ours = docker(*shlex.split(line)), swarmpy(*shlex.split(line))
    assert (ours.code, ours.out) == (theirs.code, theirs.out)
    assert ours.err.replace("See '", "Run '") == _as_swarmpy(theirs.err)
    assert ours.code != 0


NOT_YET = """
service create --secret s img
service create --config c img
service create --credential-spec file://x img
service update --secret-rm s web
stack deploy x
secret ls
config ls
volume ls
swarm unlock
swarm ca --rotate
swarm init --external-ca protocol=cfssl,url=https://x
""".strip().splitlines()


@pytest.mark.parametrize("line", NOT_YET)
def test_what_is_not_there_yet_is_refused_with_a_sentence(
    line: str, daemon: FakeDaemon, swarmpy: Run
) -> None:
    done = swarmpy(*shlex.split(line))
    assert done.code == 125
    assert "not supported by this version of swarmpy" in done.err
    assert not daemon.cluster.requests


def test_options_of_a_log_driver_need_the_driver(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "create", "--log-opt", "a=b", "img")
    assert (done.code, done.err) == (1, "--log-opt needs --log-driver: options belong to a driver\n")


@pytest.mark.parametrize("template", ["{{.ID", "{{.Nope}}", "{{foo .ID}}", "{{}}", "{{if .ID}}", "{{end}}", "{{.ID .Name}}",
                                      "{{&}}", "{{json}}", "{{(.ID}}"])  # fmt: skip
def test_bad_templates(template: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {}})
    done = swarmpy("service", "ls", "--format", template)
    assert done.code == 64
    assert done.err.startswith("template parsing error: ")


def test_no_daemon(swarmpy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"unix://{tmp_path}/gone.sock"
    sentence = (f"Cannot connect to the swarmpy daemon at {gone}. Is it running? "
                "Start it with systemctl start swarmpy, or `swarmpy daemon` as root.\n")  # fmt: skip
    for words in (("-H", gone, "node", "ls"), (f"--host={gone}", "service", "ls"), ("-H", gone, "leave")):
        done = swarmpy(*words)
        assert (done.code, done.err) == (1, sentence)
    monkeypatch.setenv("SWARMPY_HOST", gone)
    assert swarmpy("info").err == sentence
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "gone.sock"))
    dead.close()
    assert swarmpy("info").err == sentence


def test_only_unix_sockets(swarmpy: Run) -> None:
    for host in ("tcp://10.0.0.1:2376", "ssh://x", "unix://", "10.0.0.1:2375"):
        done = swarmpy("-H", host, "node", "ls")
        assert done.code == 1
        assert "only over a unix socket" in done.err
    assert socket_path("/run/x.sock") == "/run/x.sock"


def test_where_the_daemon_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWARMPY_HOST", raising=False)
    assert daemon_host("") == DEFAULT_HOST == "unix:///run/swarmpy/swarmpy.sock"
    monkeypatch.setenv("SWARMPY_HOST", "unix:///a")
    assert daemon_host("") == "unix:///a"
    assert daemon_host("unix:///b") == "unix:///b"


def test_something_else_on_the_socket(swarmpy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "odd.sock"))
    server.listen()

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-odd\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    done = swarmpy("-H", f"unix://{tmp_path}/odd.sock", "node", "ls")
    thread.join(10)
    server.close()
    assert done.code == 1
    assert "broke off GET /nodes" in done.err


INIT = f"""Swarm initialized: current node ({NODE_M}) is now a manager.

To add a worker to this swarm, run the following command:

    swarmpy join --token SWMTKN-1-aaa-worker 10.0.0.1:2377

To add a manager to this swarm, run 'swarmpy join-token manager' and follow the instructions.
"""


@pytest.mark.parametrize("words", [("init",), ("swarm", "init")])
def test_init_join_token_leave(words: tuple[str, ...], daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.active = False
    done = swarmpy(
        *words, "--advertise-addr", "10.0.0.1", "--task-history-limit", "0", "--cert-expiry", "48h"
    )
    assert (done.code, done.out) == (0, INIT)
    assert daemon.sent("POST", "/swarm/init")[0]["body"] == {
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.0.0.1", "DataPathAddr": "", "DataPathPort": 0,
        "DefaultAddrPool": [], "SubnetSize": 24, "ForceNewCluster": False, "AutoLockManagers": False,
        "Availability": "", "Spec": {"Orchestration": {"TaskHistoryRetentionLimit": 0},
                                     "CAConfig": {"NodeCertExpiry": 48 * 3600 * 10**9}}}  # fmt: skip
    again = swarmpy(*words)
    assert (again.code, again.err) == (
        1,
        "Error response from daemon: This node is already part of a swarm.\n",
    )
    token = swarmpy("join-token", "-q", "manager")
    assert token.out == "SWMTKN-1-aaa-manager\n"
    assert swarmpy("join-token", "--rotate", "worker").out == (
        "Successfully rotated worker join token.\n\nTo add a worker to this swarm, run the following command:\n\n"
        "    swarmpy join --token SWMTKN-1-aaa-worker2 10.0.0.1:2377\n\n"
    )
    assert swarmpy("leave").code == 1
    assert swarmpy("leave", "-f").out == "Node left the swarm.\n"
    assert "Swarm: inactive" in swarmpy("info").out


def test_init_sends_what_docker_sends(daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    words = ("--advertise-addr", "eth0", "--listen-addr", "10.0.0.1", "--availability", "drain", "--autolock",
             "--default-addr-pool", "10.1.0.0/16", "--default-addr-pool", "10.2.0.0/16,10.3.0.0/16",
             "--default-addr-pool-mask-length", "26", "--data-path-port", "5000", "--snapshot-interval", "5",
             "--max-snapshots", "0", "--dispatcher-heartbeat", "2s")  # fmt: skip
    bodies = []
    for run in (docker, swarmpy):
        daemon.cluster.active = False
        assert run("swarm", "init", *words).code == 0
        bodies.append(daemon.sent("POST", "/swarm/init")[-1]["body"])
    spec, theirs = bodies[1].pop("Spec"), bodies[0].pop("Spec")
    assert bodies[1] == bodies[0]
    for part, fields in spec.items():
        assert {key: theirs[part][key] for key in fields} == fields


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_join(role: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.active = False
    daemon.cluster.role_after_join = role
    refused = swarmpy("join", "--token", "wrong", "10.0.0.9:2377")
    assert refused.code == 1
    assert "A valid join token is necessary" in refused.err
    done = swarmpy("join", "--token", "SWMTKN-1-aaa-worker", "10.0.0.9:2377")
    assert (done.code, done.out) == (0, f"This node joined a swarm as a {role}.\n")
    assert daemon.sent("POST", "/swarm/join")[-1]["body"]["RemoteAddrs"] == ["10.0.0.9:2377"]


FAKE_DAEMON = """
import signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.cli.fake_swarm_daemon import FakeDaemon
print("a first line")
if {fails}:
    sys.exit("no Engine answers at unix:///nope")
daemon = FakeDaemon(Path(sys.argv[sys.argv.index("--socket") + 1]))
daemon.cluster.active = False
signal.sigwait([signal.SIGTERM])
daemon.close()
"""


def _as_daemon(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    script = FAKE_DAEMON.format(root=str(ROOT), fails=fails)
    monkeypatch.setattr(starting, "COMMAND", (sys.executable, "-c", script))


def test_init_starts_a_daemon_where_none_answers(
    swarmpy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"unix://{tmp_path}/new.sock"
    _as_daemon(monkeypatch, fails=False)
    done = swarmpy("-H", host, "init")
    assert (done.code, done.out) == (0, INIT)
    process = int(done.err.split("(process ")[1].split(")")[0])
    try:
        assert (
            done.err == f"Started the swarmpy daemon (process {process}); its log is {tmp_path}/daemon.log\n"
        )
        assert os.getsid(process) == process  # a session of its own: it outlives this terminal
        assert swarmpy("-H", host, "node", "ls").code == 0
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def test_a_daemon_that_does_not_start(swarmpy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_daemon(monkeypatch, fails=True)
    done = swarmpy("-H", f"unix://{tmp_path}/new.sock", "join", "--token", "x", "10.0.0.9:2377")
    assert (done.code, done.err) == (
        1, f"the swarmpy daemon ended with exit code 1 instead of answering at unix://{tmp_path}/new.sock; "
        f"its last words in {tmp_path}/daemon.log: no Engine answers at unix:///nope\n")  # fmt: skip


def test_a_daemon_that_never_answers(swarmpy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "COMMAND", (sys.executable, "-c", "import signal; signal.pause()"))
    monkeypatch.setattr(starting, "PATIENCE", 0.2)
    done = swarmpy("-H", f"unix://{tmp_path}/new.sock", "init")
    assert done.code == 1
    assert "did not answer" in done.err
    assert "it left no word" in done.err


def test_only_root_starts_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="only root can start one"):
        starting.start_daemon(f"unix://{tmp_path}/x.sock")


@pytest.mark.parametrize("works", [True, False])
def test_systemd_starts_its_unit(
    works: bool, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "systemctl"
    calls = tmp_path / "calls"
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        + ("" if works else "[ $1 = cat ] || { echo refused >&2; exit 5; }\n")
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(starting, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(starting, "DEFAULT_HOST", daemon.host)
    if works:
        starting.start_daemon(daemon.host)
    else:
        with pytest.raises(CommandError, match=r"systemd could not start swarmpy\.service: refused"):
            starting.start_daemon(daemon.host)
    assert calls.read_text() == "cat swarmpy.service\nstart swarmpy.service\n"


@pytest.mark.parametrize("words", [("node", "ls"), ("init",), ("service", "ls")])
def test_an_interrupt_leaves_no_traceback(
    words: tuple[str, ...], env: dict[str, str], tmp_path: Path
) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "slow.sock"))
    server.listen()
    child = start({**env, "SWARMPY_HOST": f"unix://{tmp_path}/slow.sock"}, *words)
    connection, _ = server.accept()
    connection.recv(65536)  # the command waits for an answer now
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    connection.close()
    server.close()
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_stale_version_is_the_daemons_sentence(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy(
        "service", "rollback", "-d", daemon.cluster.create({"Name": "web", "TaskTemplate": {}})["ID"]
    )
    assert done.code == 1
    assert done.err == ("Error response from daemon: rpc error: code = FailedPrecondition desc = "
                        "service does not have a previous spec\n")  # fmt: skip


@pytest.mark.parametrize("line", ["service inspect {}", "service create --name {} img", "service rm {}",
                                  "service ls --filter name={}", "service ls --format {}", "{}"])  # fmt: skip
def test_words_that_are_not_utf8_are_refused(line: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    word = os.fsdecode(b"caf\xe9")
    done = swarmpy(*line.format(word).split())
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == 'swarmpy: the argument "'
        + next(one for one in line.split() if "{}" in one).format("caf\\udce9")
        + '" is not valid UTF-8\n'
    )


@pytest.mark.parametrize(
    "words", ["node inspect", "node rm", "service rm", "service inspect", "service logs"]
)
def test_an_empty_reference_is_said_to_be_empty(swarmpy: Run, words: str) -> None:
    done = swarmpy(*words.split(), "")
    assert done.code == 1
    assert done.err == "invalid name or ID: value is empty\n"
