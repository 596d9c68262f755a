"""What the machine raises, for all parts of it."""


class MachineError(Exception):
    """The machine could not be made or started, or does not answer; says why and what would help."""
