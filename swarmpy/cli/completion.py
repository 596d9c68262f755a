"""Shell completion: the scripts, and the words that they ask for.

The scripts only pass the command line to `swarmpy __complete WORD...`, which answers from the tables and, for
names of services, nodes and tasks, from the daemon (silently without any when none answers).
"""

from __future__ import annotations

from swarmpy.cli import commands
from swarmpy.cli.client import Client
from swarmpy.cli.output import out
from swarmpy.cli.tables import CommandError, Flag, Parsed, Verb

BASH = r"""# swarmpy completion for bash: source <(swarmpy completion bash)
_swarmpy() {
    local IFS=$'\n'
    COMPREPLY=($(swarmpy __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _swarmpy swarmpy
"""
ZSH = r"""#compdef swarmpy
# swarmpy completion for zsh: source <(swarmpy completion zsh)
_swarmpy() {
    local -a found
    found=("${(@f)$(swarmpy __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found
}
compdef _swarmpy swarmpy
"""
FISH = r"""# swarmpy completion for fish: swarmpy completion fish | source
function __swarmpy_complete
    set -l words (commandline -opc) (commandline -ct)
    swarmpy __complete $words[2..-1] 2>/dev/null
end
complete -c swarmpy -f -a '(__swarmpy_complete)'
"""
_NETWORK_FLAGS = frozenset(("network", "network-add", "network-rm"))
_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(parsed: Parsed) -> int:
    """Print the script of a shell."""
    shell = parsed.args[0]
    if shell not in _SCRIPTS:
        raise CommandError(f"no completion for {shell}: only {', '.join(_SCRIPTS)} are supported")
    out(_SCRIPTS[shell].rstrip("\n"))
    return 0


def complete(words: list[str], host: str) -> int:
    """Print the candidates for the last of these words, one a line."""
    last = words[-1] if words else ""
    for word in candidates(words[:-1], last, host):
        if word.startswith(last):
            out(word)
    return 0


def candidates(before: list[str], last: str, host: str) -> list[str]:
    """Everything that may stand where `last` is, given the words before it."""
    words = list(before)
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        if flag in ("-H", "--host") and words:
            host = words.pop(0)
    if not words:
        return _global(last)
    word = words.pop(0)
    if word in commands.TOP:
        return _verb(commands.top_verb(word), words, last, host)
    if word not in commands.NOUNS:
        return []
    noun = commands.noun(word)
    if not words:
        return sorted(verb.name for verb in noun.verbs)
    verb = noun.find(words.pop(0))
    return _verb(verb, words, last, host) if verb else []


def _global(last: str) -> list[str]:
    if last.startswith("-"):
        return [*(f"--{flag.name}" for flag in commands.GLOBAL_FLAGS), "--help"]
    return sorted([*commands.TOP, *commands.NOUNS])


def _wanted(verb: Verb, words: list[str]) -> Flag | None:
    """The flag whose value comes next, if the words end with one that needs a value."""
    if not words or not words[-1].startswith("-") or "=" in words[-1]:
        return None
    for flag in verb.flags:
        if words[-1] in (f"--{flag.name}", f"-{flag.short}" if flag.short else ""):
            return None if flag.kind.switch else flag
    return None


def _verb(verb: Verb, words: list[str], last: str, host: str) -> list[str]:
    flag = _wanted(verb, words)
    if flag is not None:
        return list(flag.kind.choices) or (_networks(host) if flag.name in _NETWORK_FLAGS else [])
    if last.startswith("-"):
        return [*sorted(f"--{one.name}" for one in verb.flags if not one.refused), "--help"]
    if not isinstance(verb.subject, str):
        return list(verb.subject)
    try:
        return _names(verb, host)
    except CommandError:
        return []  # a completion without a daemon is no completion; a message would garble the line


def _networks(host: str) -> list[str]:
    try:
        return sorted(str(one.get("Name", "")) for one in Client(host).get("/networks"))
    except CommandError:
        return []  # as above


def _names(verb: Verb, host: str) -> list[str]:
    if verb.subject == "service":
        names = sorted(str(one["Spec"].get("Name", "")) for one in Client(host).get("/services"))
        return [f"{name}=" for name in names] if verb.name == "scale" else names
    if verb.subject == "node":
        names = sorted(
            str((one.get("Description") or {}).get("Hostname", "")) for one in Client(host).get("/nodes")
        )
        return ["self", *names] if verb.name in ("ps", "inspect") else names
    if verb.subject == "network":
        return _networks(host)
    return []
