"""Encrypted networks on a kernel with IPsec: two nodes, a stranger, and all that stood in the way before.

One machine is started for all of it (encryption.py); each test looks at one part of what was seen there. The guard
of the ports is nftables', which that kernel lacks: where the guard's rules lean on what IPsec tells of a packet, the
same question is put to it by iptables.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.uml import machine

ESP, UDP = 50, 17
IGMP = 2


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = machine.run([sys.executable, "-m", "tests.uml.encryption"], deadline=180)
    assert done.status == 0, done.output
    return dict(json.loads(done.files["found"]))


pytestmark = pytest.mark.timeout(240)


def test_without_encryption_the_wire_shows_everything(seen: dict[str, Any]) -> None:
    """What the other tests would see if it failed."""
    assert seen["clear"]["answers"]
    assert seen["clear"]["wire"]["canaries"] == 2
    assert seen["clear"]["wire"]["ports"] == [4790]


def test_the_kernel_is_known_to_be_able(seen: dict[str, Any]) -> None:
    assert seen["probe"]


def test_without_secrets_nothing_passes(seen: dict[str, Any]) -> None:
    assert not seen["blocked"]["answers"]
    assert not set(seen["blocked"]["wire"]["protocols"]) & {ESP, UDP}
    assert seen["blocked"]["open"], "the network beside it is not concerned"


def test_what_passes_is_esp_alone(seen: dict[str, Any]) -> None:
    assert seen["marks"] == [True, True]
    assert seen["sealed"]["answers"]
    assert set(seen["sealed"]["wire"]["protocols"]) - {IGMP} == {ESP}
    assert seen["sealed"]["wire"]["canaries"] == 0


def test_the_largest_packet_fits_the_underlay_to_the_byte(seen: dict[str, Any]) -> None:
    assert seen["largest"]["fits"]
    assert not seen["largest"]["too large"]
    assert (seen["largest"]["wire"]["longest"], seen["largest"]["wire"]["fragments"]) == (1500, 0)


def test_a_network_that_is_not_encrypted_works_beside_it(seen: dict[str, Any]) -> None:
    assert seen["open"]["answers"]
    assert seen["open"]["wire"]["ports"] == [4789]
    assert seen["open"]["wire"]["canaries"] == 2


def test_others_cannot_speak_on_the_network(seen: dict[str, Any]) -> None:
    """In the clear, from their own address and from a member's, at the other port, and with made-up ESP."""
    attacks = seen["attacks"]
    assert attacks["heard"] == []
    refused = attacks["refused"]
    assert refused["XfrmInPolBlock"] == 1, "the stranger by his own address"
    assert refused["XfrmInTmplMismatch"] == 1, "the stranger by a member's address"
    assert refused["XfrmInStateProtoError"] == 2, "ESP with a key of his own"


def test_a_local_process_needs_the_guard(seen: dict[str, Any]) -> None:
    """IPsec encrypts whatever leaves for the port; that only the VXLAN device may send there is the guard's
    rule, here asked of iptables: a packet that a socket of this namespace owns is dropped, the device's is not."""
    attacks = seen["attacks"]
    assert attacks["unguarded process"] == ["local process"]
    assert attacks["guarded process"] == []
    assert attacks["guarded answers"]


def test_what_the_guard_asks_of_ipsec_is_answered_right(seen: dict[str, Any]) -> None:
    attacks = seen["attacks"]
    assert attacks["decrypted is known as such"]
    assert attacks["to be encrypted is known as such"]
    assert not attacks["without policies"]
    assert attacks["without policies, on the wire"] == 0
    assert attacks["mended"]


def test_turns_of_the_ring_under_traffic_lose_nothing(seen: dict[str, Any]) -> None:
    rotations = seen["rotations"]
    assert rotations["sent"] > 300, "too little traffic to tell"
    assert rotations["back"] == rotations["sent"]
    assert rotations["marks"] == 12
    assert rotations["states"] == 6, "old associations are left"
    assert rotations["wire"]["canaries"] == 0
    assert set(rotations["wire"]["protocols"]) - {IGMP} == {ESP}


def test_nodes_one_turn_apart_understand_each_other_and_no_others(seen: dict[str, Any]) -> None:
    assert seen["alone"] == {"two turns": False, "one turn": True}


def test_an_agent_that_starts_anew_interrupts_nothing(seen: dict[str, Any]) -> None:
    assert seen["restart"] == {"same": True, "answers": True}


def test_what_others_did_is_seen_and_mended(seen: dict[str, Any]) -> None:
    for how, what in seen["meddling"].items():
        assert what["said"] == "", how
        assert (what["seen"], what["mended"], what["answers"]) == (True, True, True), how
        if how != "policies flushed":  # that is where the guard stands
            assert what["wire"]["canaries"] == 0, how


def test_clear_leaves_nothing_of_ours_and_all_of_the_administrators(seen: dict[str, Any]) -> None:
    assert seen["cleared"] == {
        "nothing": "", "said": "", "theirs": True, "both": True, "left": True, "mark": "",
    }  # fmt: skip
