"""Many seeds on all cores: `swarmpy sim` as users call it, once per core, until one of them finds something.

What belongs here: sharing seeds out and reporting the first that broke. What does not: which seeds.
"""

from __future__ import annotations

import os
import subprocess
import sys


def broken(world: str, seeds: range) -> str:
    """What `swarmpy sim` says of the seeds that break an invariant; "" when none does.

    Each core plays one stretch of them, so that a stretch can be played again with the same command.
    """
    cores = min(os.cpu_count() or 1, len(seeds))
    stretches = [
        seeds[core * len(seeds) // cores : (core + 1) * len(seeds) // cores] for core in range(cores)
    ]
    command = [sys.executable, "-m", "swarmpy.sim.main", "--world", world, "--seeds"]
    pipe = subprocess.PIPE
    players = [
        subprocess.Popen([*command, f"{one[0]}..{one[-1]}"], stdout=pipe, stderr=subprocess.STDOUT, text=True)
        for one in stretches
    ]
    said = []
    try:
        for player, stretch in zip(players, stretches, strict=True):
            out, _ = player.communicate()
            played = [line for line in out.splitlines() if line.startswith("seed ")]
            if player.returncode != 0 or len(played) != len(stretch):
                said.append(out)
    finally:
        for player in players:
            player.kill()
            player.wait()
    return "\n".join(said)
