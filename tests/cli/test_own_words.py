"""What swarmpy's own command line says otherwise than docker's: names of its own commands, and sentences where
docker has none or odd ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmpy.cli.usage import code_of
from swarmpy.cli.words import own
from tests.cli.conftest import Run
from tests.cli.fake_swarm_daemon import FakeDaemon


@pytest.mark.parametrize(
    ("docker", "swarmpy"),
    [
        ('Use "docker swarm init" or "docker swarm join" to', 'Use "swarmpy init" or "swarmpy join" to'),
        ('Use "docker swarm leave" to', 'Use "swarmpy leave" to'),
        ("ask with 'docker swarm join-token worker'", "ask with 'swarmpy join-token worker'"),
        ('use "docker swarm unlock" to', 'use "swarmpy swarm unlock" to'),
        ("`docker node ls`, docker service ps", "`swarmpy node ls`, swarmpy service ps"),
        ("docker network create --ingress", "swarmpy network create --ingress"),
        ('Use the "docker info" command', 'Use the "swarmpy info" command'),
        ("docker run, docker information and dockerd", "docker run, docker information and dockerd"),
        ("mydocker node", "mydocker node"),
        ("part of a Docker swarm: leave it", "part of a Docker swarm: leave it"),
        ("", ""),
    ],
)
def test_dockers_words_are_ours(docker: str, swarmpy: str) -> None:
    assert own(docker) == swarmpy
    assert own(swarmpy) == swarmpy


def test_refusals_name_the_commands_of_who_reads_them(daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    daemon.cluster.active = False
    told = "Error response from daemon: This node is not a swarm manager. Use "
    assert docker("node", "ls").err.startswith(f'{told}"docker swarm init" or "docker swarm join" ')
    done = swarmpy("node", "ls")
    assert (done.code, done.err) == (
        1, f'{told}"swarmpy init" or "swarmpy join" to connect this node to swarm and try again.\n'
    )  # fmt: skip


@pytest.mark.parametrize("tail", ["foo", "1.5", "1e3", "9999999999", "٣", "0x5"])
def test_a_tail_that_is_no_number_is_refused(tail: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "logs", "--tail", tail, "web")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f'invalid value for "tail": "{tail}" is not a number of lines (at most 999999999), nor "all"\n'
    )
    assert not daemon.cluster.requests


def test_a_time_before_all_others_is_read_or_refused(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "logs", "--since", "0001-01-01", "web")
    assert (done.code, done.err) == (
        1, 'invalid value for "since": failed to parse value as time or duration: "0001-01-01"\n'
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"), [("foo", "foo"), ("foo=", "foo"), ("=10.1.0.9", "=10.1.0.9"), ("", "=")]
)
def test_an_aux_address_without_name_or_address_is_refused(
    given: str, shown: str, daemon: FakeDaemon, swarmpy: Run
) -> None:
    done = swarmpy(
        "network", "create", "-d", "overlay", "--subnet", "10.1.0.0/24", "--aux-address", given, "x"
    )
    assert (done.code, done.err) == (1, f'invalid aux-address "{shown}": it is NAME=ADDRESS\n')
    assert not daemon.cluster.requests


@pytest.mark.parametrize("ports", ["1-60000:1-60000", "1-60000", "2000-3000:80"])
def test_more_ports_than_a_service_can_publish(ports: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "create", "-p", ports, "img")
    assert done.code == 125
    assert "ports are more than one service can publish (1000): each is a rule on every node" in done.err
    assert not daemon.cluster.requests
    assert swarmpy("service", "create", "-d", "-p", "2000-2999:2000-2999", "img").code == 0


def test_a_relative_source_of_a_bind_mount_is_said_in_full(
    daemon: FakeDaemon, swarmpy: Run, docker: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker resolves it without a word, and the task's error names a path that nobody typed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ("service", "create", "-d", "--no-resolve-image", "--mount", "type=bind,src=../a,dst=/a", "img")
    note = (
        f"Note: the source ../a of a mount is taken as {os.path.realpath(tmp_path)}/a, which is looked for on the "
        "node that runs the task\n"
    )
    done = swarmpy(*words)
    assert (done.code, done.err) == (0, note)
    assert docker(*words).code == 0
    ours, theirs = (one["body"] for one in daemon.sent("POST", "/services/create"))
    assert (
        ours["TaskTemplate"]["ContainerSpec"]["Mounts"] == theirs["TaskTemplate"]["ContainerSpec"]["Mounts"]
    )
    daemon.cluster.create({"Name": "web", "TaskTemplate": {"ContainerSpec": {}}, "Mode": {"Global": {}}})
    assert swarmpy("service", "update", "-d", "--mount-add", words[5], "web").err == note
    assert swarmpy(*(word.replace("../a", "/a") for word in words)).err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("daemon", "--foo"), 125),
        (("daemon", "--balancer", "zz"), 125),
        (("daemon", "extra"), 1),
        (("daemon", "--help"), 0),
        (("sim", "--foo"), 125),
        (("sim", "--seed", "x"), 125),
        (("sim", "--seeds", "7"), 125),
        (("sim", "extra"), 1),
        (("lab", "--foo"), 125),
        (("lab", "up", "--foo"), 125),
        (("lab", "up", "--managers", "x"), 125),
        (("lab", "up", "--managers"), 125),
        (("lab", "kill", "m1", "--what", "x"), 125),
        (("lab", "bogus"), 1),
        (("lab", "kill"), 1),
        (("lab",), 1),
        (("lab", "up", "--help"), 0),
    ],
)
def test_exit_codes_of_other_rooms_command_lines(words: tuple[str, ...], code: int, swarmpy: Run) -> None:
    done = swarmpy(*words)
    assert done.code == code, done.err
    assert bool(done.err) == bool(code)


def test_what_argparse_says_has_a_code() -> None:
    assert code_of("the following arguments are required: --name, NODE") == 125
    assert code_of("unrecognized arguments: extra --foo") == 125
    assert code_of("argument VERB: invalid choice: 'x' (choose from 'up')") == 1
