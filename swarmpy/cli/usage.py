"""The exit codes of the command lines that argparse reads (`daemon`, `lab`, `sim`): those of all others.

argparse ends whatever is wrong with 2; Docker's users and scripts tell a wrong flag (125) from wrong
arguments (1). What does not belong here: the options themselves (their rooms).
"""

from __future__ import annotations

import argparse
from typing import NoReturn

WRONG_ARGUMENTS, WRONG_FLAG = 1, 125


def code_of(message: str) -> int:
    """The exit code for what argparse complains of."""
    first, _, rest = message.partition(": ")
    if first == "the following arguments are required":
        subject = rest
    elif first == "unrecognized arguments":
        subject = next((word for word in rest.split() if word.startswith("-")), rest)
    else:
        subject = first.removeprefix("argument ")
    return WRONG_FLAG if subject.startswith("-") and not subject.startswith("-- ") else WRONG_ARGUMENTS


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that ends like Docker's command line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how it is used, and end."""
        self.exit(code_of(message), f"{self.prog}: {message}\n\n{self.format_usage()}")
