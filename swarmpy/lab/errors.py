"""What the lab refuses, as sentences for its user."""


class LabError(Exception):
    """A refusal or failure of the lab: one sentence with what, why and what would help."""
