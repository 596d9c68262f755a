"""validate.check: the rules that need only the spec."""

from __future__ import annotations

import pytest

from swarmpy.model.errors import InvalidArgument, Refusal, Unimplemented
from swarmpy.model.specs import service_view
from swarmpy.plan.admission import validate

PLAIN = '"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"web:1"%s}%s}'


def spec(container: str = "", template: str = "", rest: str = "") -> str:
    return "{" + PLAIN % (container, template) + rest + "}"


def ports(count: int) -> str:
    every = ",".join(
        f'{{"TargetPort":80,"PublishedPort":{number}}}' for number in range(10_000, 10_000 + count)
    )
    return spec(rest=f',"EndpointSpec":{{"Ports":[{every}]}}')


def test_a_service_has_so_many_ports_and_not_one_more() -> None:
    validate.check(service_view(ports(1000)))
    with pytest.raises(InvalidArgument) as refused:
        validate.check(service_view(ports(1001)))
    assert refused.value.message == (
        "1001 ports are more than one service can publish (1000): each is a rule on every node; publish fewer, "
        "or give the service the host network"
    )


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
