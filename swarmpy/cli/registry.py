"""Registries: names of images, digests, and the user's credentials.

Docker's clients pin digests, not its servers: the image is looked up through the daemon before a service is
created, and its digest and platforms go into the spec. What does not belong here: pulling (the Engine does).
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.human import familiar_image, tagged
from swarmpy.cli.output import warn
from swarmpy.cli.spec import Spec, section
from swarmpy.cli.tables import CommandError

HUB = "https://index.docker.io/v1/"
_IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
_WORDS = ("username", "password", "identitytoken", "registrytoken")
UNRESOLVED = (
    "image {image} could not be accessed on a registry to record\n"
    "its digest. Each node will access {image} independently,\n"
    "possibly leading to different nodes running different\n"
    "versions of the image.\n"
)


def with_tag(image: str) -> str:
    """The image as people write it, with `:latest` where it has neither tag nor digest."""
    if "@" in image:
        return image
    name = familiar_image(image)
    return name if tagged(name) else f"{name}:latest"


def resolve(client: Client, spec: Spec, auth: str, *, ask: bool) -> None:
    """Give the image its tag and, with `ask`, pin its digest and platforms. A registry that cannot be asked
    is a warning, not an error."""
    container = section(spec, "TaskTemplate.ContainerSpec")
    image = str(container.get("Image", ""))
    if not _IMAGE.match(image):
        return  # the daemon says what is wrong with it
    image = container["Image"] = with_tag(image)
    if not ask:
        return
    try:
        found = client.call(
            "GET", f"/distribution/{image}/json", headers={"X-Registry-Auth": auth} if auth else None
        )
    except CommandError:
        warn(UNRESOLVED.format(image=image))
        return
    digest = ((found or {}).get("Descriptor") or {}).get("digest", "")
    if digest and "@" not in container["Image"]:
        container["Image"] = f"{container['Image']}@{digest}"
    platforms = [_platform(one) for one in (found or {}).get("Platforms") or []]
    if platforms:
        section(spec, "TaskTemplate.Placement")["Platforms"] = [one for one in platforms if one]


def _platform(found: dict[str, Any]) -> dict[str, str]:
    """A platform as placement compares it: arm has too many variants to compare; unknown is none."""
    architecture = found.get("architecture", "")
    system = found.get("os", "")
    if "unknown" in (architecture, system):
        return {}
    if architecture.lower() == "arm":
        architecture = ""
    return {key: value for key, value in (("Architecture", architecture), ("OS", system)) if value}


def registry_of(image: str) -> str:
    """The key under which Docker's config file has the credentials for an image."""
    first, slash, _ = image.partition("/")
    if (
        slash
        and ("." in first or ":" in first or first == "localhost")
        and first not in ("docker.io", "index.docker.io")
    ):
        return first
    return HUB


def auth_header(image: str) -> str:
    """X-Registry-Auth for an image, from the user's Docker configuration. Raises CommandError where the
    credentials are kept by a helper program."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = _section(json.load(file), "it")
    except FileNotFoundError:
        config = {}
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"cannot read the registry credentials in {path}: {error}") from None
    registry = registry_of(image)
    try:
        return _header(config, registry, path)
    except ValueError as error:
        raise CommandError(f"cannot read the registry credentials in {path}: {error}") from None


def _header(config: dict[str, Any], registry: str, path: str) -> str:
    import base64

    helper = _section(config.get("credHelpers"), "credHelpers").get(registry) or config.get("credsStore")
    if helper:
        raise CommandError(
            f"the credentials for {registry} are kept by the helper program "
            f"docker-credential-{helper}, which swarmpy does not run; put them into {path} with "
            "`docker login` without a credential store, or leave out --with-registry-auth"
        )
    content = _credentials(_section(config.get("auths"), "auths"), registry, path)
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _credentials(auths: dict[str, Any], registry: str, path: str) -> dict[str, str]:
    import base64

    entry = auths.get(registry)
    if entry is None:
        bare = [key for key in auths if re.sub(r"\Ahttps?://", "", key).split("/")[0] == registry]
        if not bare:
            return {}
        entry = auths[bare[0]]
    entry = _section(entry, f"the entry of {registry}")
    content = {"serveraddress": registry}
    for key, value in entry.items():
        if key in ("auth", *_WORDS) and not isinstance(value, str):
            raise ValueError(f"{key} of {registry} is not a text")
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except ValueError as error:
            raise CommandError(f"the credentials for {registry} in {path} are not base64: {error}") from None
        content.update(username=user, password=password.strip("\x00"))
    for key in _WORDS:
        if entry.get(key):
            content[key] = entry[key]
    return content


def _section(value: Any, what: str) -> dict[str, Any]:
    """A part of the file; an absent one is empty. Raises ValueError where it is no object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value
