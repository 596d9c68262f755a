"""validate.check: the rules that need only the spec."""

from __future__ import annotations

import pytest

from swarmpy.model.errors import InvalidArgument, Refusal, Unimplemented
from swarmpy.model.specs import service_view
from swarmpy.plan.admission import validate

PLAIN = '"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"web:1"%s}%s}'


def spec(container: str = "", template: str = "", rest: str = "") -> str:
    return "{" + PLAIN % (container, template) + rest + "}"


def test_a_plain_spec_is_fine() -> None:
    validate.check(service_view(spec()))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (spec(template=',"Resources":{"Limits":{"NanoCPUs":1}}'), InvalidArgument),
        (spec(template=',"Resources":{"Limits":{"MemoryBytes":4096}}'), InvalidArgument),
        (spec(container=',"Mounts":[{"Target":"/a"},{"Target":"/a"}]'), InvalidArgument),
        (spec(container=',"Secrets":[{"SecretID":"x"}]'), Unimplemented),
        (spec(rest=',"Mode":{"ReplicatedJob":{}}'), Unimplemented),
    ],
)
def test_what_is_refused(text: str, kind: type[Refusal]) -> None:
    with pytest.raises(kind):
        validate.check(service_view(text))
