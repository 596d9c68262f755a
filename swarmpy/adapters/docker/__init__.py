"""The container engine's hand: ports.Engine over Docker's API (the `docker` SDK).

Nothing else belongs here.
"""

from swarmpy.adapters.docker.engine import DockerEngine

__all__ = ["DockerEngine"]
