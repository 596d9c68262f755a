"""The docker CLI itself, as people use it, against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil

from swarmpy.ports import TaskLogFrame
from tests.api.conftest import Rig


async def docker(rig: Rig, *words: str, code: int = 0) -> str:
    """Run the CLI; its output, both streams. A missing CLI fails the test: it is part of what is promised."""
    program = shutil.which("docker")
    assert program, "the docker CLI is not installed: install docker.io"
    environment = {
        "DOCKER_HOST": f"unix://{rig.socket}",
        "PATH": os.environ["PATH"],
        "HOME": str(rig.socket.parent),
    }
    process = await asyncio.create_subprocess_exec(
        program, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == code, output.decode()
    return output.decode()


def columns(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


async def test_nodes(rig: Rig) -> None:
    rows = columns(await docker(rig, "node", "ls"))
    assert rows[0] == ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"]
    assert rows[1] == ["node1".ljust(25, "0") + " *", "host1", "Ready", "Active", "Leader", "20.10.24"]
    assert rows[2][1:] == ["host2", "Ready", "Active", "20.10.24"]
    assert "host3" in await docker(rig, "node", "inspect", "--pretty", "host3")
    assert await docker(rig, "node", "update", "--availability", "drain", "host3") == "host3\n"
    assert "Drain" in await docker(rig, "node", "ls")
    assert "is not down and can't be removed" in await docker(rig, "node", "rm", "host2", code=1)


async def test_life_of_a_service(rig: Rig) -> None:
    made = await docker(
        rig,
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--replicas",
        "2",
        "--env",
        "A=b",
        "--constraint",
        "node.role==worker",
        "--publish",
        "published=8080,target=80,mode=host",
        "--limit-cpu",
        "0.5",
        "nginx:1.25",
    )
    assert rig.control.current.service_named("web").id in made  # type: ignore[union-attr]
    assert columns(await docker(rig, "service", "ls"))[1][1:5] == ["web", "replicated", "2/2", "nginx:1.25"]
    rows = columns(await docker(rig, "service", "ps", "web"))
    assert [row[1] for row in rows[1:]] == ["web.1", "web.2"]
    assert all("Running" in row for row in rows[1:])
    pretty = await docker(rig, "service", "inspect", "--pretty", "web")
    assert "Replicas:\t2" in pretty
    assert "PublishedPort = 8080" in pretty
    assert "web" in await docker(rig, "service", "scale", "-d", "web=1")
    assert "1/1" in await docker(rig, "service", "ls")
    await docker(rig, "service", "update", "-d", "--image", "nginx:1.26", "--label-add", "x=y", "web")
    assert rig.control.current.service_named("web").view.labels == {"x": "y"}  # type: ignore[union-attr]
    await docker(rig, "service", "rollback", "-d", "web")
    assert rig.control.current.service_named("web").view.task_template.container.image == "nginx:1.25"  # type: ignore[union-attr]
    assert await docker(rig, "service", "rm", "web") == "web\n"
    assert len(columns(await docker(rig, "service", "ls"))) == 1


async def test_create_waits_until_it_has_converged(rig: Rig) -> None:
    said = await docker(
        rig, "service", "create", "--update-monitor", "100ms", "--name", "web", "--replicas", "2", "nginx"
    )
    assert "converged" in said


async def test_refusals_are_shown(rig: Rig) -> None:
    for words, text in (
        (("--publish", "80:80", "--endpoint-mode", "dnsrr"), "can't be used with dnsrr mode"),
        (("--network", "nope"), "network nope not found"),
        (("--network", "ingress"), "Service cannot be explicitly attached to the ingress network"),
        (("--mode", "replicated-job"), "jobs are not supported"),
        (("--constraint", "nonsense"), "constraint expected one operator from =="),
        (("--limit-cpu", "0.0001"), "invalid cpu value 0.0001: Must be at least 0.001"),
        (("--env", "A={{.Nope}}"), "Nope"),
        (("--update-failure-action", "rollback"), "--update-failure-action pause"),
    ):
        said = await docker(rig, "service", "create", "-d", *words, "nginx", code=1)
        assert text in said, said
    assert "service nope not found" in await docker(rig, "service", "rm", "nope", code=1)


async def test_networks(rig: Rig) -> None:
    made = await docker(
        rig, "network", "create", "-d", "overlay", "--subnet", "10.7.0.0/24", "--label", "a=b", "back"
    )
    back = rig.control.current.network_named("back")
    assert back is not None
    assert made == f"{back.id}\n"
    assert "already exists" in await docker(rig, "network", "create", "-d", "overlay", "back", code=1)
    rows = columns(await docker(rig, "network", "ls", "--filter", "driver=overlay"))
    assert [row[1:] for row in rows[1:]] == [["back", "overlay", "swarm"], ["ingress", "overlay", "swarm"]]
    await docker(
        rig, "service", "create", "-d", "--name", "web", "--network", "name=back,alias=www", "--publish",
        "8080-8081:80-81", "nginx",
    )  # fmt: skip
    assert "*:8080-8081->80-81/tcp" in await docker(rig, "service", "ls")
    pretty = await docker(rig, "service", "inspect", "--pretty", "web")
    assert "Networks: back" in pretty
    assert "Endpoint Mode:\tvip" in pretty
    assert "PublishMode = ingress" in pretty
    shown = json.loads(await docker(rig, "network", "inspect", "--verbose", "back"))[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.1"}]
    assert shown["Services"]["web"]["VIP"] == "10.7.0.2"
    assert len(shown["Services"]["web"]["Tasks"]) == 1
    assert "is in use by service" in await docker(rig, "network", "rm", "back", code=1)
    await docker(
        rig, "service", "update", "-d", "--network-rm", "back", "--publish-rm", "80", "--publish-add",
        "target=90,published=9090", "web",
    )  # fmt: skip
    assert "*:8081->81/tcp, *:9090->90/tcp" in await docker(rig, "service", "ls")
    assert await docker(rig, "network", "rm", "back") == "back\n"
    assert "network back not found" in await docker(rig, "network", "inspect", "back", code=1)


async def test_swarm_commands(rig: Rig) -> None:
    assert "SWMTKN-1-" in await docker(rig, "swarm", "join-token", "worker")
    before = await docker(rig, "swarm", "join-token", "-q", "manager")
    assert before != await docker(rig, "swarm", "join-token", "-q", "--rotate", "manager")
    assert "Swarm updated." in await docker(rig, "swarm", "update", "--task-history-limit", "2")
    info = await docker(rig, "info")
    assert "Is Manager: true" in info
    assert "Task History Retention Limit: 2" in info
    assert "-----BEGIN CERTIFICATE" in await docker(rig, "swarm", "ca")


async def test_logs(rig: Rig) -> None:
    await docker(rig, "service", "create", "-d", "--name", "web", "nginx")
    task = next(iter(rig.control.current.tasks))
    rig.control.frames = [TaskLogFrame(task.id, task.node_id, task.service_id, "stdout", b"hello\n")]
    said = await docker(rig, "service", "logs", "web")
    assert re.match(rf"web\.1\.{task.id[:12]}@host\d\s+\| hello\n", said), said
    rig.control.frames.append(
        TaskLogFrame(task.id, task.node_id, task.service_id, "stderr", b"", problem="node x is not available")
    )
    assert "incomplete log stream" in await docker(rig, "service", "logs", "web", code=1)


async def test_the_rest_is_the_engines(rig: Rig) -> None:
    assert "1.41" in await docker(rig, "version")
