"""What no Engine could run is refused when the service is created, with its sentence; what depends on the node
is not."""

from __future__ import annotations

from typing import Any

import pytest

from swarmpy.model.errors import InvalidArgument
from swarmpy.model.specs import compact, service_view
from swarmpy.plan.admission import validate


def check(container: dict[str, Any], **template: Any) -> None:
    task = {"ContainerSpec": {"Image": "web:1", **container}, **template}
    validate.check(service_view(compact({"Name": "web", "TaskTemplate": task})))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"StopSignal": "SIGFOO"}, "invalid stop signal 'SIGFOO': name one, such as SIGTERM, or its number"),
    ({"StopSignal": "0"}, "invalid stop signal '0'"),
    ({"StopSignal": "65"}, "invalid stop signal '65'"),
    ({"StopSignal": "-9"}, "invalid stop signal '-9'"),
    ({"StopSignal": "٩"}, "invalid stop signal"),
    ({"StopSignal": "SIGRTMIN+16"}, "invalid stop signal 'SIGRTMIN+16'"),
    ({"CapabilityAdd": ["foo"]}, "unknown capability 'foo' in --cap-add: name one of Linux's, such as "
                                 "CAP_NET_ADMIN, or ALL"),
    ({"CapabilityDrop": ["NET_ADMIN", "CAP_ALL"]}, "unknown capability 'CAP_ALL' in --cap-drop"),
    ({"CapabilityAdd": [""]}, "unknown capability ''"),
    ({"User": "a:b:c"}, "invalid user 'a:b:c': it is USER or USER:GROUP"),
    ({"User": "2147483648"}, "invalid user '2147483648': numbers of users and groups go from 0 to 2147483647"),
    ({"User": "www:99999999999"}, "invalid user"),
    ({"Groups": ["4294967296"]}, "invalid group '4294967296'"),
    ({"Groups": [""]}, "invalid group ''"),
    ({"Sysctls": {"foo": ""}}, "invalid sysctl 'foo': it is NAME=VALUE, as in net.core.somaxconn=1024"),
    ({"Sysctls": {"foo": "1"}}, "invalid sysctl 'foo=1'"),
    ({"Sysctls": {"net.core.somaxconn": ""}}, "invalid sysctl 'net.core.somaxconn'"),
    ({"Sysctls": {"net..core": "1"}}, "invalid sysctl"),
    ({"Sysctls": {"net.core/../../x": "1"}}, "invalid sysctl"),
    ({"OomScoreAdj": 5000}, "invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ({"OomScoreAdj": -1001}, "invalid value -1001"),
    ({"Hostname": "a b"}, "invalid hostname 'a b': it can have no blanks and control characters"),
    ({"Hostname": "a\nb"}, "invalid hostname"),
    ({"Hostname": "h" * 65}, "invalid hostname 'hhhhhhhhhhhh…': it can have 64 characters at most"),
    ({"DNSConfig": {"Nameservers": ["notanip"]}}, "invalid DNS server 'notanip': an IP address is expected"),
    ({"DNSConfig": {"Search": ["a b"]}}, "invalid DNS search domain 'a b'"),
    ({"DNSConfig": {"Options": ["ndots:1\nnameserver 1.2.3.4"]}}, "invalid DNS option"),
    ({"Hosts": ["badmapping"]}, "invalid host entry 'badmapping': it is an IP address and a name"),
    ({"Hosts": ["x web"]}, "invalid host entry 'x web'"),
    ({"Ulimits": [{"Name": "foo", "Soft": 1, "Hard": 1}]}, "invalid ulimit type 'foo'"),
    ({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 3}]},
     "invalid ulimit nofile: its soft limit 5 is above its hard limit 3"),
    ({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 3}]},
     "invalid ulimit nofile: its soft limit unlimited is above its hard limit 3"),
    ({"Ulimits": [{"Name": "nofile", "Soft": -5, "Hard": -5}]}, "invalid ulimit nofile: -5"),
    ({"Ulimits": [{"Name": "core", "Soft": 1, "Hard": 1}] * 2}, "ulimit core is given twice"),
    ({"Env": ["=x"]}, "invalid environment variable: =x"),
    ({"Env": [""]}, "invalid environment variable: "),
    ({"Dir": "srv"}, "the working directory 'srv' is invalid: it needs to be an absolute path"),
    ({"Args": ["a\x00b"]}, "'a\\x00b' holds a zero byte, which no program can be given"),
    ({"Env": ["A=\x00"]}, "holds a zero byte"),
    ({"Mounts": [{"Target": "/a\x00"}]}, "holds a zero byte"),
    ({"Mounts": [{"Target": "/"}]}, "invalid mount target '/': it is the container's own root"),
    ({"Mounts": [{"Target": "/a/.."}]}, "invalid mount target '/a/..'"),
    ({"Mounts": [{"Target": "/a"}, {"Target": "/b/../a/"}]}, "duplicate mount point: /b/../a/"),
    ({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"Propagation": "x"}}]},
     "invalid bind propagation 'x': it is private, rprivate, slave, rslave, shared or rshared"),
    ({"Mounts": [{"Target": "/a", "Source": "no/name"}]},
     "invalid volume name 'no/name': it is of letters, digits, _ . - and at least two of them"),
    ({"Mounts": [{"Target": "/a", "Source": "v"}]}, "invalid volume name 'v'"),
    ({"Healthcheck": {"Test": ["RUN", "x"]}}, "unknown health check type 'RUN': it is NONE, CMD or CMD-SHELL"),
    ({"Healthcheck": {"Test": ["CMD-SHELL"]}}, "a health check of type CMD-SHELL needs a command"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "text"), REFUSED)
def test_what_no_node_could_run_is_refused(container: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(container)
    assert text in refused.value.message


ADMITTED: list[dict[str, Any]] = [
    *({"StopSignal": one} for one in ("SIGTERM", "term", "sigusr1", "9", "64", "RTMIN+3", "SIGRTMAX-14",
                                      "SIGPOLL", "")),
    {"CapabilityAdd": ["ALL", "all", "net_admin", "CAP_BPF"], "CapabilityDrop": ["CAP_CHECKPOINT_RESTORE"]},
    *({"User": one} for one in ("", "a", "a:b", "0:0", "2147483647", ":33", "nobody", "a.b-c_d$")),
    {"Groups": ["docker", "0"]},
    {"Sysctls": {"net.core.somaxconn": "1024", "net.ipv4.ip_local_port_range": "1 2", "kernel.shmmax": "0",
                 "net/ipv4/conf/eth0.1/forwarding": "1", "fs.mqueue.msg_max": "5"}},
    *({"OomScoreAdj": one} for one in (-1000, 0, 1000)),
    *({"Hostname": one} for one in ("web_1", "Web.example.org", "h" * 64, "{{.Node.Hostname}}-" + "x" * 64)),
    {"DNSConfig": {"Nameservers": ["10.0.0.1", "fd00::1"], "Search": [".", "a.b", "_tcp.x."],
                   "Options": ["ndots:2"]}},
    {"Hosts": ["10.0.0.1 a", "fd00::1 b", "host-gateway c", "10.0.0.2 d e"]},
    {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": -1}, {"Name": "core", "Soft": -1, "Hard": -1}]},
    {"Env": ["A", "A=", "A=b=c", "with blank=1"]},
    {"Dir": "/srv"},
    {"Mounts": [{"Target": "/a", "Source": "vol-1.x"}, {"Target": "/b", "Source": "{{.Task.ID}}"},
                {"Target": "{{.Service.Name}}"}, {"Target": "/c"},
                {"Target": "/d", "Source": "any/thing", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]},
    *({"Healthcheck": {"Test": one}} for one in ([], ["NONE"], ["CMD", "true"], ["CMD-SHELL", "true"])),
]  # fmt: skip


@pytest.mark.parametrize("container", ADMITTED)
def test_what_some_node_could_run_is_admitted(container: dict[str, Any]) -> None:
    check(container)


def test_a_log_driver_that_this_manager_does_not_know_is_admitted() -> None:
    check({}, LogDriver={"Name": "zz", "Options": {"a": "b"}})


def test_the_nodes_own_network_has_its_own_sysctls_and_names() -> None:
    host = [{"Target": "host"}]
    check({"Sysctls": {"net.core.somaxconn": "1"}}, Networks=[{"Target": "n1"}])
    with pytest.raises(InvalidArgument) as refused:
        check({"Sysctls": {"net.core.somaxconn": "1"}}, Networks=host)
    assert refused.value.message == (
        "sysctl 'net.core.somaxconn' cannot be set in the host network, which is the node's own: leave it "
        "away, or use another network"
    )
    with pytest.raises(InvalidArgument, match="aliases are for overlay networks: the node's host network"):
        check({}, Networks=[{"Target": "host", "Aliases": ["a"]}])
    with pytest.raises(InvalidArgument, match="invalid alias 'a b'"):
        check({}, Networks=[{"Target": "n1", "Aliases": ["a b"]}])
    with pytest.raises(InvalidArgument, match=r"driver option io\.swarmpy\.mac is swarmpy's own"):
        check({}, Networks=[{"Target": "n1", "DriverOpts": {"io.swarmpy.mac": "x"}}])
    check({}, Networks=[{"Target": "n1", "Aliases": ["db", "db.example", "_x"], "DriverOpts": {"a": "b"}}])
