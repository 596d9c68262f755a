"""swarmpy: a Swarm-compatible container orchestrator. Only the version lives here."""

__version__ = "0.1.0"
