"""The command line as a whole: help, completion, the reference page, its cost, and the small grammars."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from swarmpy.cli import commands, human
from swarmpy.cli.grammars import mount
from swarmpy.cli.reference import page
from swarmpy.cli.tables import Verb
from swarmpy.cli.template import Template
from swarmpy.cli.values import nano_cpus, size
from swarmpy.model.durations import duration
from tests.cli.conftest import ROOT, Run
from tests.cli.fake_swarm_daemon import FakeDaemon

HEAVY = {
    "asyncio",
    "aiohttp",
    "docker",
    "pyroute2",
    "pysyncobj",
    "msgspec",
    "argparse",
    "dataclasses",
    "logging",
}


def verbs() -> list[tuple[str, Verb]]:
    found = [(f"swarmpy {word}", commands.top_verb(word)) for word in commands.TOP]
    return found + [
        (f"swarmpy {word} {verb.name}", verb) for word in commands.NOUNS for verb in commands.noun(word).verbs
    ]


@pytest.mark.parametrize(("path", "verb"), verbs(), ids=[path for path, _ in verbs()])
def test_every_verb_runs_something_and_helps(path: str, verb: Verb, swarmpy: Run) -> None:
    module, _, function = verb.run.partition(":")
    assert callable(getattr(import_module(module), function))
    if verb.raw:
        return
    for words in (path.split()[1:], ["help", *path.split()[1:]]):
        done = swarmpy(*words, *(["--help"] if words[0] != "help" else []))
        assert done.code == 0
        assert done.out.startswith(f"Usage:  {path}")
        assert all(f"--{flag.name}" in done.out for flag in verb.flags)
        assert all(len(line) <= 80 for line in done.out.splitlines() if "  --" not in line)


@pytest.mark.parametrize("path", ["service create", "service update", "service ls", "service ps", "service logs",
                                  "service scale", "service rollback", "service inspect", "node ls", "node ps",
                                  "node update", "node rm", "node inspect", "swarm init", "swarm join",
                                  "swarm join-token", "swarm leave", "swarm update", "network create",
                                  "network ls", "network inspect", "network rm", "network prune",
                                  "network connect", "network disconnect"])  # fmt: skip
def test_every_flag_of_docker_is_known(path: str, docker: Run) -> None:
    import re

    noun, name = path.split()
    verb = commands.noun(noun).find(name)
    assert verb is not None
    known = {flag.name for flag in verb.flags} | {flag.short for flag in verb.flags if flag.short}
    theirs = re.findall(r"^ +(?:-(\w), )?--([\w-]+)", docker(noun, name, "--help").out, re.MULTILINE)
    assert {one for pair in theirs for one in pair if one} - known == set()


def test_top_help_names_every_command(swarmpy: Run) -> None:
    text = swarmpy("--help").out
    assert all(f"  {word} " in text for word in (*commands.TOP, *commands.NOUNS))
    assert swarmpy().out == text
    assert swarmpy("-h").out == text
    assert "Usage:  swarmpy node COMMAND" in swarmpy("node").out


def test_version(swarmpy: Run) -> None:
    from swarmpy import __version__

    assert swarmpy("--version").out == f"swarmpy version {__version__}\n"


def test_flags_in_every_position(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}}})
    daemon.cluster.create({"Name": "web2", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}}})
    assert swarmpy("service", "scale", "web=2", "-d", "web2=3").code == 0
    assert swarmpy("service", "scale", "--detach=true", "--", "web=4").code == 0
    assert swarmpy("service", "update", "web", "-dq", "--replicas", "5", "--args", "-v --x").code == 0
    assert daemon.sent("POST", "/services/.*/update")[-1]["body"]["TaskTemplate"]["ContainerSpec"][
        "Args"
    ] == ["-v", "--x"]
    assert swarmpy("service", "create", "-d=1", "--no-resolve-image", "img", "-d", "--name", "x").code == 0
    assert daemon.sent("POST", "/services/create")[-1]["body"]["TaskTemplate"]["ContainerSpec"]["Args"] == [
        "-d", "--name", "x"]  # fmt: skip


def test_node_ls_loads_little(daemon: FakeDaemon, env: dict[str, str]) -> None:
    code = ("import sys; from swarmpy.cli.main import main; main(['node', 'ls']); "
            "print(sorted(sys.modules), file=sys.stderr)")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.strip("'[] ").split(".")[0] for name in done.stderr.split(",")}
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("words", [["service", "ls", "--help"], ["--help"], ["service", "create", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from swarmpy.cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stderr.split()} & (
        HEAVY | {"http", "ssl", "subprocess"}
    ) == set()


COMPLETIONS = [
    (["serv"], ["service"]),
    (["service", "l"], ["logs", "ls"]),
    (["service", "ps", "w"], ["web", "web2"]),
    (["service", "scale", ""], ["web=", "web2="]),
    (["service", "ls", "--f"], ["--filter", "--format"]),
    (["service", "create", "--mode", "g"], ["global", "global-job"]),
    (["service", "update", "--update-order", ""], ["start-first", "stop-first"]),
    (["service", "create", "--netw"], ["--network"]),
    (["service", "create", "--endpoint-mode", ""], ["vip", "dnsrr"]),
    (["service", "create", "--network", "b"], ["back10", "back9", "bridge"]),
    (["service", "update", "--network-rm", "in"], ["ingress"]),
    (["network", "create", "-d", "o"], ["overlay"]),
    (["network", "rm", "b"], ["back10", "back9", "bridge"]),
    (
        ["network", "create", "--i"],
        ["--ingress", "--internal", "--ip-range", "--ipam-driver", "--ipam-opt", "--ipv4", "--ipv6"],
    ),
    (["service", "create", "--secr"], []),
    (["node", "inspect", "n"], ["node1", "node10", "node2"]),
    (["node", "update", "--availability", ""], ["active", "pause", "drain"]),
    (["join-token", ""], ["worker", "manager"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["--h"], ["--host", "--help"]),
    (["bogus", ""], []),
]


@pytest.mark.parametrize(("words", "expected"), COMPLETIONS)
def test_completion(words: list[str], expected: list[str], daemon: FakeDaemon, swarmpy: Run) -> None:
    for name in ("web2", "web"):
        daemon.cluster.create({"Name": name, "TaskTemplate": {}})
    assert swarmpy("__complete", *words).out.split() == expected


def test_completion_without_a_daemon_is_silent(swarmpy: Run) -> None:
    done = swarmpy("-H", "unix:///nowhere.sock", "__complete", "service", "ps", "")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_bash_completes_with_the_script(daemon: FakeDaemon, env: dict[str, str]) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {}})
    script = (f"swarmpy() {{ {sys.executable} -m swarmpy \"$@\"; }}; eval \"$(swarmpy completion bash)\"; "
              "COMP_WORDS=(swarmpy service ps w); COMP_CWORD=3; _swarmpy; echo \"${COMPREPLY[@]}\"")  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "web\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, swarmpy: Run) -> None:
    assert "swarmpy __complete" in swarmpy("completion", shell).out
    assert swarmpy("completion", "tcsh").code == 1


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8") == page()


def test_other_rooms_command_lines(swarmpy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    fake = types.ModuleType("swarmpy.lab.main")
    seen: list[list[str]] = []
    fake.main = seen.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swarmpy.lab.main", fake)
    assert swarmpy("lab", "exec", "m1", "--", "ls", "-l").code == 0
    assert seen == [["exec", "m1", "--", "ls", "-l"]]


def test_explain_prints_every_verdict(daemon: FakeDaemon, swarmpy: Run) -> None:
    task = {"id": "t1", "name": "web.2.t1", "state": "pending", "desired": "running", "node": "",
            "waits": ["it waits for a node", "and for its delay"], "until": 8000000000, "err": "x"}  # fmt: skip
    nodes = [{"node_id": "n1", "node": "node1", "fits": False, "reasons": ["insufficient memory", "drained"],
              "change": "add 512 MiB", "cost": 3},
             {"node_id": "n2", "node": "node2", "fits": True, "reasons": [], "change": "", "cost": 0}]  # fmt: skip
    daemon.explanation = {
        "kind": "task", "id": "t1", "name": "web.2.t1", "summary": "it waits", "at": 5000000000, "tasks": [task],
        "nodes": nodes, "smallest_change": "activate node1", "notes": ["the update is paused"],
        "new_field": {"rows": [{"some_key": 1}, {"some_key": [2, 3]}], "flag": True}}  # fmt: skip
    assert swarmpy("explain", "web.2").out.splitlines() == [
        "web.2.t1: it waits",
        "",
        "TASK      STATE     DESIRED   NODE      WAITS",
        "web.2     Pending   Running   -         it waits for a node, and for its delay (for 3 seconds more)",
        "",
        "NODE      FITS      WHY NOT                        WHAT WOULD HELP",
        "node1     no        insufficient memory, drained   add 512 MiB",
        "node2     yes       -                              -",
        "",
        "Smallest change: activate node1",
        "",
        "the update is paused",
        "",
        "New field:",
        "  Rows:",
        "    SOME KEY",
        "    1",
        "    2, 3",
        "  Flag: yes",
    ]
    assert daemon.sent("GET", "/swarmpy/v1/explain")[0]["query"] == {"ref": "web.2"}
    assert '"smallest_change":"activate' in swarmpy("explain", "--json", "web.2").out


def test_info(daemon: FakeDaemon, swarmpy: Run) -> None:
    assert swarmpy("info").out.splitlines()[:3] == [
        "Swarm: active",
        " NodeID: m1aaaaaaaaaaaaaaaaaaaaaaa",
        " Is Manager: true",
    ]
    assert swarmpy("info", "-f", "{{.Swarm.LocalNodeState}}").out == "active\n"


DURATIONS = {0: "Less than a second", 1: "1 second", 59.9: "59 seconds", 60: "About a minute", 120: "2 minutes",
             3599: "59 minutes", 3600: "About an hour", 5400: "2 hours", 47 * 3600: "47 hours", 48 * 3600: "2 days",
             14 * 86400: "2 weeks", 60 * 86400: "2 months", 730 * 86400: "2 years", 1095 * 86400: "3 years"}  # fmt: skip


@pytest.mark.parametrize(("seconds", "words"), DURATIONS.items())
def test_human_durations(seconds: float, words: str) -> None:
    assert human.human_duration(seconds) == words


def test_go_durations() -> None:
    for text in (
        "0s",
        "5s",
        "1m30s",
        "2160h0m0s",
        "1.5s",
        "300ms",
        "1h0m0.000000001s",
        "1µs",
        "100ns",
        "-2m0s",
    ):
        assert human.go_duration(duration(text)) == text
    assert duration("1h2m3.5s") == 3723500000000
    assert duration(".5s") == duration("500ms") == duration("+0.5s")


def test_sizes_and_cpus() -> None:
    assert [size(text) for text in ("1", "1k", "1KB", "1.5GiB", "2 mb")] == [
        1,
        1024,
        1024,
        1610612736,
        2097152,
    ]
    assert [nano_cpus(text) for text in ("1", ".5", "1/4", "1e-1")] == [10**9, 5 * 10**8, 250000000, 10**8]
    assert human.bytes_size(8346071040) == "7.773GiB"
    assert human.bytes_size(512) == "512B"


def test_natural_order() -> None:
    names = ["web.10", "web.9", "a", "web2.1", "web", "a1"]
    assert sorted(names, key=human.natural) == ["a", "a1", "web", "web2.1", "web.9", "web.10"]


def test_mounts_that_create_their_source() -> None:
    assert mount("type=bind,src=/a,dst=/b,bind-create-src") == {
        "Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"CreateMountpoint": True}}  # fmt: skip


TEMPLATES = [
    ("{{.A}} {{.B.C}}", "1 x"),
    ("{{json .B}}", '{"C":"x"}'),
    ('{{.B.C | upper}}-{{lower "ABC"}}-{{title .B.C}}', "X-abc-X"),
    ("{{range .L}}<{{.}}>{{end}}", "<a><b>"),
    ("{{range .N}}x{{else}}none{{end}}", "none"),
    ("{{if .A}}yes{{else}}no{{end}} {{if .Z}}yes{{else if .B}}b{{end}}", "yes b"),
    ('{{index .M "a.b"}} {{index .L 1}} {{len .L}} {{join .L ","}}', "v b 2 a,b"),
    ("{{range $.L}}{{$.A}}{{end}}", "11"),
    ("a {{- .A -}} b", "a1b"),
    ("{{.Missing}} {{.M}} {{.L}} {{.T}}", "<no value> map[a.b:v] [a b] true"),
    ("{{/* a comment */}}{{println .A}}", "1\n"),
    ('{{len (index .B "C")}}', "1"),
]


@pytest.mark.parametrize(("template", "text"), TEMPLATES)
def test_templates(template: str, text: str) -> None:
    data = {"A": 1, "B": {"C": "x"}, "L": ["a", "b"], "N": [], "M": {"a.b": "v"}, "T": True}
    assert Template(template).render(data) == text


def test_an_interrupt_while_the_command_line_loads_is_quiet() -> None:
    program = """
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "swarmpy.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from swarmpy.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
