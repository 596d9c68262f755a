"""Shared trust for the pki tests."""

from __future__ import annotations

import time

import pytest

from swarmpy.pki.ca import Authority

NOW = (time.time_ns() // 10**9) * 10**9


class MemoryStore:
    """The part of a disk that the trust room writes to, in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def replace(self, path: str, data: bytes) -> None:
        assert path.rpartition("/")[0] in self.folders
        self.files[path] = data

    def mkdir(self, folder: str) -> None:
        self.folders.add(folder)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create(NOW)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
