"""The same flags give the same spec, and the same lists the same text, as the real docker client's.

Both clients talk to the same fake daemon. Where swarmpy differs on purpose it is tested elsewhere.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_cluster import NET_B
from tests.cli.fake_swarm_daemon import DIGEST, NODE_M, NODE_W, FakeDaemon

CREATE = """
--name a
--name a --replicas 0
--name a --replicas 0x10
--hostname h --user 1000:1000 --workdir /w --stop-signal SIGUSR1 -t --read-only --isolation default
--user=root -w/tmp --tty=false --init
--init=false --stop-grace-period 1m30s
--stop-grace-period 0s
--entrypoint "sh -c 'a b'"
--label a=1 -l b=2 --label a=3 --label empty --container-label c=d --container-label c=e
-e A=1 -e B=2 --env A=3 -e UNSET_HERE -e HOME_FROM_CLIENT
--env-file env.list -e FILE=over
--group wheel --group 100
--mount type=volume,source=v,target=/v --mount type=bind,src=/a,dst=/b,readonly
--mount type=bind,src=/a,dst=/b,ro=false,bind-propagation=rslave
--mount type=bind,src=/a,dst=/b,ro,bind-recursive=writable
--mount type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770
--mount source=v,target=/v,volume-nocopy,volume-label=a=b,volume-label=c,volume-driver=d,volume-opt=o=1,volume-subpath=s
--mount '"type=volume","source=v","volume-opt=o=a=b,c",target=/v'
--limit-cpu 0.5 --limit-memory 512m --limit-pids 100 --reserve-cpu 1/4 --reserve-memory 1.5GiB
--limit-memory 1gb --reserve-memory 1000
--generic-resource gpu=2 --generic-resource ssd=1
--constraint node.role==worker --constraint node.labels.a!=b --placement-pref spread=node.labels.zone --replicas-max-per-node 2
--restart-condition none
--restart-delay 1m --restart-max-attempts 3 --restart-window 2m
--restart-max-attempts 0
--update-delay 10s
--update-parallelism 0 --update-max-failure-ratio 0.25 --update-order start-first --update-monitor 1m --update-failure-action rollback
--update-parallelism 3
--rollback-parallelism 0 --rollback-delay 1500ms --rollback-max-failure-ratio .5 --rollback-order start-first --rollback-monitor 20s --rollback-failure-action continue
--mode global
--mode replicated-job --replicas 5 --max-concurrent 2
--mode replicated-job --replicas 5
--mode global-job
--publish 8080:80
-p 80
-p 8080:80/udp -p 53:53/sctp
-p published=8080,target=80,protocol=udp,mode=host
--publish mode=host,target=80
-p 8000-8002:9000-9002
--publish 7000-7001:70
--health-cmd "curl localhost" --health-interval 5s --health-timeout 2s --health-retries 3 --health-start-period 1m --health-start-interval 1s
--health-interval 5s
--no-healthcheck
--log-driver json-file --log-opt max-size=10m --log-opt max-file=3
--log-driver none
--ulimit nofile=1024:2048 --ulimit nproc=100 --ulimit core=-1
--cap-add net_admin --cap-add CAP_SYS_TIME --cap-drop all
--cap-add ALL --cap-drop NET_RAW
--cap-add chown --cap-drop chown
--sysctl net.core.somaxconn=1024 --sysctl a=b
--dns 8.8.8.8 --dns ::1 --dns-search example.com --dns-search . --dns-option ndots:1
--host db:10.0.0.5 --host gw=192.168.0.1
--endpoint-mode vip
--endpoint-mode DNSRR
--network back9
--network nb10bbbbbbbbbbbbbbbbbbbbb --network na9aaaaaaaaaaaaaaaaaaaaaa
--network name=Back9,alias=db,alias=Store,driver-opt=k=v --network '"name=back10", alias = x'
-p 8080:80 -p 8443:443/tcp -p target=53,published=5353,protocol=udp
-p mode=ingress,target=80
--oom-score-adj -500
--oom-score-adj=5 --quiet
""".strip().splitlines()

UPDATE = """
--replicas 7
--image nginx:2
--image nginx
--args "one 'two three'"
--entrypoint ""
--env-add A=9 --env-add NEW=1 --env-rm B
--label-add x=1 --label-rm a
--container-label-add y=1 --container-label-rm c
--force
--mount-add type=volume,source=v2,target=/v
--mount-add type=tmpfs,target=/t --mount-rm /v
--publish-add 9000:90 --publish-rm 80
--publish-rm target=80,mode=host
--publish-add 8080:80
--constraint-add node.role==worker --constraint-rm node.labels.a==b
--placement-pref-add spread=node.labels.rack --placement-pref-rm spread=node.labels.zone
--group-add zz --group-rm wheel
--generic-resource-add gpu=5 --generic-resource-add fpga=1
--generic-resource-rm gpu
--dns-add 1.1.1.1 --dns-rm 8.8.8.8 --dns-search-add b.com --dns-option-add x
--host-add new:10.1.1.1 --host-rm db
--host-rm db:10.0.0.9
--ulimit-add nofile=5 --ulimit-rm core
--sysctl-add a=b --sysctl-rm net.core.somaxconn
--cap-add SYS_TIME --cap-drop NET_ADMIN
--cap-add NET_RAW
--cap-add RESET --cap-drop chown
--hostname "" --user "" --tty=false --read-only --init
--limit-cpu 0 --limit-memory 1g
--reserve-memory 0
--restart-delay 0s
--restart-condition any
--update-parallelism 0
--update-order start-first --rollback-delay 1s
--health-interval 9s --health-retries 0
--health-cmd ""
--no-healthcheck
--log-driver syslog --log-opt a=b
--replicas-max-per-node 0
--stop-grace-period 5s --stop-signal SIGINT --workdir /x
--endpoint-mode vip
--endpoint-mode dnsrr
--network-add back9
--network-add name=back9,alias=db --network-rm back10
--network-rm nb10bbbbbbbbbbbbbbbbbbbbb
--network-rm back9 --network-add back9
--publish-add 9000-9002:90-92 --publish-add target=53,published=5353,protocol=udp
--publish-rm 80/udp --publish-rm target=80,published=1
--with-registry-auth
--oom-score-adj 0
""".strip().splitlines()

FULL: dict[str, Any] = {
    "Name": "web",
    "Labels": {"a": "1", "b": "2"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "nginx:1", "Labels": {"c": "d"}, "Args": ["x"], "Command": ["sh"], "Hostname": "h",
            "Env": ["A=1", "B=2"], "User": "u", "Groups": ["wheel"], "TTY": True, "Init": False,
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}],
            "Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 5000000000, "Retries": 2},
            "Hosts": ["10.0.0.5 db", "10.0.0.9 db other"],
            "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": ["a.com"]}, "Isolation": "default",
            "Sysctls": {"net.core.somaxconn": "1"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_NET_RAW"],
            "Ulimits": [{"Name": "core", "Hard": 1, "Soft": 1}], "OomScoreAdj": 7,
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500000000, "Pids": 9},
            "Reservations": {"MemoryBytes": 5000000,
                             "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]},
        },
        "Placement": {"Constraints": ["node.labels.a==b"], "MaxReplicas": 3,
                      "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]},
        "Networks": [{"Target": NET_B, "Aliases": ["db"]}],
        "ForceUpdate": 4, "Runtime": "container",
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
    },
    "Mode": {"Replicated": {"Replicas": 2}},
    "RollbackConfig": {"Parallelism": 2, "MaxFailureRatio": 0, "Order": "stop-first"},
    "EndpointSpec": {"Mode": "vip", "Ports": [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8081, "PublishMode": "host"}]},
}  # fmt: skip
ORDERLESS = {"Env", "Ports", "GenericResources", "Ulimits"}
POINTERS = {"Init", "Replicas", "MaxAttempts", "Delay", "Window", "StopGracePeriod", "Parallelism"}


def meaning(value: Any, key: str = "") -> Any:
    """A spec as a server understands it: absent, null and zero are one, but for pointers; order matters only
    where it does to Docker."""
    if isinstance(value, dict):
        inner = {name: meaning(item, name) for name, item in value.items()}
        kept = key == "Mode"  # an empty Global or Replicated object says which mode it is
        return {
            name: item
            for name, item in inner.items()
            if kept or name in POINTERS or item not in (None, 0, "", [], {})
        }
    if isinstance(value, list):
        items = [meaning(item) for item in value]
        return sorted(items, key=repr) if key in ORDERLESS else items
    return value


@pytest.mark.parametrize("line", CREATE)
def test_create_sends_the_same_spec(line: str, daemon: FakeDaemon, swarmpy: Run, docker: Run, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("HOME_FROM_CLIENT", "yes")
    (tmp_path / "env.list").write_text(
        "\ufeff# comment\n\nFILE=1\n  INDENTED=x y\nHOME_FROM_CLIENT\nNOT_SET_ANYWHERE\n"
    )
    words = ["service", "create", "--detach", *shlex.split(line.replace("env.list", str(tmp_path / "env.list"))),
             "nginx:1", "cmd", "--flag"]  # fmt: skip
    import os

    specs = []
    for run in (docker, swarmpy):
        daemon.cluster.services.clear()
        done = _run(run, docker, words, dict(os.environ))
        assert done.code == 0, done.err
        specs.append(meaning(daemon.sent("POST", "/services/create")[-1]["body"]))
    assert specs[1] == specs[0]


def _run(run: Run, docker: Run, words: list[str], env: dict[str, str]) -> Any:
    if run is not docker:
        return run(*words)
    import subprocess

    from tests.cli.conftest import Done

    done = subprocess.run(
        ["docker", *words], env=env, capture_output=True, text=True, check=False, timeout=30
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("line", UPDATE)
def test_update_sends_the_same_spec(line: str, daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    import copy

    requests = []
    for run in (docker, swarmpy):
        daemon.cluster.services.clear()
        service_id = daemon.cluster.create(copy.deepcopy(FULL))["ID"]
        done = run("service", "update", "--detach", *shlex.split(line), "web")
        assert (done.code, done.out) == (0, "web\n"), done.err
        request = daemon.sent("POST", f"/services/{service_id}/update")[-1]
        query = {
            key: value for key, value in request["query"].items() if key != "version" and value != "none"
        }
        requests.append((meaning(request["body"]), query))
    assert requests[1] == requests[0]


def test_update_keeps_fields_it_does_not_know(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create(
        {**FULL, "Future": {"x": [1]}, "TaskTemplate": {**FULL["TaskTemplate"], "New": None}}
    )
    assert swarmpy("service", "update", "-d", "--replicas", "3", "web").code == 0
    body = daemon.sent("POST", "/services/.*/update")[-1]["body"]
    assert body["Future"] == {"x": [1]}
    assert "New" in body["TaskTemplate"]


PLATFORMS = [
    {"architecture": "amd64", "os": "linux"},
    {"architecture": "arm", "os": "linux", "variant": "v7"},
]


@pytest.mark.parametrize("image", ["nginx", "nginx:1", "reg.example:5000/a/b:2", "docker.io/library/nginx:1",
                                   f"nginx@{DIGEST}", f"nginx:1@{DIGEST}"])  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_digest_is_pinned_as_docker_does(
    image: str, known: bool, daemon: FakeDaemon, swarmpy: Run, docker: Run
) -> None:
    if known:
        found = {"Descriptor": {"mediaType": "x", "digest": DIGEST, "size": 1}, "Platforms": PLATFORMS}
        for name in (image, image.removeprefix("docker.io/library/"), f"{image}:latest"):
            daemon.cluster.registry[name] = found
    results = []
    for run in (docker, swarmpy):
        daemon.cluster.services.clear()
        done = run("service", "create", "-d", "--name", "a", image)
        template = daemon.sent("POST", "/services/create")[-1]["body"]["TaskTemplate"]
        results.append(
            (done.code, done.err, template["ContainerSpec"]["Image"], meaning(template["Placement"]))
        )
    assert results[1] == results[0]
    assert known == (results[1][1] == "")


def test_registry_credentials_as_docker_sends_them(
    daemon: FakeDaemon, swarmpy: Run, docker: Run, tmp_path: Path
) -> None:
    import base64
    import json

    auth = base64.b64encode(b"user:pa:ss").decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(
        {"auths": {"reg.example:5000": {"auth": auth}, "https://index.docker.io/v1/": {"auth": auth}}}))  # fmt: skip
    for image in ("reg.example:5000/a:1", "nginx:1", "other.example/x:1"):
        headers = []
        for run in (docker, swarmpy):
            daemon.cluster.services.clear()
            assert run("service", "create", "-d", "--with-registry-auth", image).code == 0
            sent = daemon.sent("POST", "/services/create")[-1]["headers"]["X-Registry-Auth"]
            headers.append(json.loads(base64.urlsafe_b64decode(sent + "==")))
        assert headers[1] == headers[0]


def test_credential_helpers_are_refused(swarmpy: Run, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"credsStore": "pass"}')
    done = swarmpy("service", "create", "-d", "--with-registry-auth", "nginx")
    assert done.code == 1
    assert "docker-credential-pass" in done.err


LISTS = """
node ls
node ls -q
node ls --format json
node ls --format '{{.Hostname}}: {{.Status}} {{.Self}} {{.TLSStatus}}'
node ls --format 'table {{.Hostname}}\\t{{.ManagerStatus}}\\t{{.ID}}'
node inspect self --pretty
node inspect node1 node2
node inspect node1 nope
node inspect -f '{{.Spec.Role}} {{.Description.Resources.NanoCPUs}} {{json .Version}}' node1 node2
node ps
node ps node2 nope
node ps nope
node promote node1
node update --label-rm zz node1
node rm nope node10
service ls
service ls -q
service ls --format json
service ls --format '{{.ID}} {{upper .Mode}} {{.Name | lower}}'
service ls --format 'table {{.Name}}\\t{{.Replicas}}\\t{{.Ports}}'
service ls -f name=w
service ps web
service ps web glob
service ps web nope
service ps nope
service ps --no-trunc --no-resolve web
service ps -q web
service ps --format json web
service ps --filter desired-state=running web
service inspect --pretty web
service inspect --pretty glob
service inspect -f '{{.Spec.Name}} {{range .Spec.TaskTemplate.ContainerSpec.Env}}[{{.}}]{{end}}' web
service inspect nope
service scale -d web=x
service scale -d glob=3
service scale -d web=3 nope=1
service rm nope web
service rollback -d web
swarm join-token -q worker
swarm leave
network ls
network ls -q
network ls --no-trunc
network ls --no-trunc --quiet
network list --format json
network ls --format '{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.CreatedAt}}'
network ls --format 'table {{.Name}}\\t{{.Labels}}\\t{{.ID}}\\t{{.IPv4}}\\t{{.IPv6}}\\t{{.Internal}}\\t{{.CreatedAt}}'
network ls -f driver=overlay --filter name=back
network inspect back9
network inspect -v back10 nope bridge
network inspect nope
network inspect -f '{{.Name}} {{.Scope}} {{(index .IPAM.Config 0).Subnet}}' ingress
network inspect --format json back9
network rm back9
network rm --force nope back9
network rm -f nope
network create -d overlay x
network connect bridge c
network connect --driver-opt a bridge c
network connect nope c
network disconnect -f bridge c
network prune --force
""".strip().splitlines()


def _populate(daemon: FakeDaemon) -> None:
    import copy

    cluster = daemon.cluster
    cluster.active = True
    spec = copy.deepcopy(FULL)
    spec["UpdateConfig"] = {"Parallelism": 2, "Delay": 90000000000, "FailureAction": "rollback",
                            "Monitor": 1500000000, "MaxFailureRatio": 0.25, "Order": "start-first"}  # fmt: skip
    cluster.create(spec)
    cluster.create({"Name": "glob", "TaskTemplate": {"ContainerSpec": {"Image": f"nginx:1@{DIGEST}"}},
                    "Mode": {"Global": {}}})  # fmt: skip
    cluster.create({"Name": "web10", "TaskTemplate": {"ContainerSpec": {"Image": "docker.io/library/nginx"}},
                    "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Ports": [
                        {"Protocol": "tcp", "TargetPort": 80 + n, "PublishedPort": 8080 + n, "PublishMode": "ingress"}
                        for n in (0, 1, 2, 7)]}})  # fmt: skip
    web = cluster.service("web")
    cluster.add_task(web, 1, NODE_W, DesiredState="shutdown", CreatedAt="2026-01-01T00:00:00Z", Status={
        "Timestamp": "2026-01-01T00:00:00Z", "State": "failed", "Err": "task: non-zero exit (137): out of memory!",
        "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8081, "PublishMode": "host"}]}})  # fmt: skip
    cluster.nodes[NODE_M]["Spec"]["Labels"] = {"zone": "a", "bare": ""}
    cluster.nodes[NODE_M]["Status"]["Message"] = "all is well"


@pytest.mark.parametrize("line", LISTS)
def test_prints_the_same(line: str, tmp_path: Path, daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    results = []
    for run in (docker, swarmpy):
        daemon.cluster.__init__()  # type: ignore[misc]
        _populate(daemon)
        done = run(*shlex.split(line))
        results.append((done.code, done.out, done.err))
    if "inspect node" in line:  # Docker orders fields and shows zero values in its own way: compare meaning
        import json

        results = [(code, meaning(json.loads(out)), err) if out.startswith("[") else (code, out, err)
                   for code, out, err in results]  # fmt: skip
    assert results[1] == results[0]
