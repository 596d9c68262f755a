"""What other programs left in Docker's configuration is read, or refused with a sentence."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from swarmpy.cli.registry import auth_header
from swarmpy.cli.tables import CommandError

IMAGE = "registry.example:5000/web:1"


def test_credentials_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    entry = {"auth": base64.b64encode(b"me:secret").decode()}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example:5000": entry}}))
    found = json.loads(base64.urlsafe_b64decode(auth_header(IMAGE)))
    assert found == {"serveraddress": "registry.example:5000", "username": "me", "password": "secret"}


@pytest.mark.parametrize("text", [
    "", "{", "[]", "7", '"x"', "[" * 100_000, '{"auths": []}', '{"auths": 7}', '{"credHelpers": ["x"]}',
    '{"auths": {"registry.example:5000": "x"}}', '{"auths": {"registry.example:5000": {"auth": 7}}}',
    '{"auths": {"registry.example:5000": {"username": ["x"]}}}',
    '{"auths": {"registry.example:5000": {"auth": "!\\u00e9"}}}',
])  # fmt: skip
def test_a_configuration_of_another_shape_is_one_sentence(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CommandError) as refused:
        auth_header(IMAGE)
    assert "credentials" in refused.value.message
    assert str(tmp_path / "config.json") in refused.value.message
    assert "\n" not in refused.value.message


def test_nulls_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"auths": null, "credHelpers": null, "credsStore": null}')
    assert json.loads(base64.urlsafe_b64decode(auth_header(IMAGE))) == {}
