"""Who may speak to a node, what is encrypted, and in which order that changes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_

from swarmpy.model.fabric import Table
from swarmpy.model.links import CipherTable, GuardTable, Secret
from swarmpy.model.objects import NetworkKey
from swarmpy.plan import fabric as p
from swarmpy.plan import guarding, share

from .test_fabric import ME, OTHER, Kernel, endpoint, table

LOCAL, PEER, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
KEYS = tuple(NetworkKey(number, f"{number:02x}" * 32) for number in (1, 2, 3))


def on(*peers: str, **rest) -> Table:
    ends = (endpoint(2), endpoint(3, OTHER)) if PEER in peers else (endpoint(2),)
    return table(*ends, peers=tuple(sorted({LOCAL, *peers})), **rest)


def sealed(*peers: str, keys: tuple[NetworkKey, ...] = KEYS, sending: int = 2) -> Table:
    return on(*peers, id="n2", encrypted=True, keys=keys, sending=sending if keys else 0)


def change(kernel: Kernel, *tables: Table) -> list[p.Action]:
    kernel.world = replace(kernel.world, tables={one.id: one for one in tables})
    return kernel.run()


def test_members_of_all_networks_may_speak_and_nobody_else() -> None:
    kernel = Kernel(on(PEER), on(THIRD, id="n3"))
    kernel.run()
    assert kernel.world.fenced.guard == GuardTable(LOCAL, 4789, 0, (PEER, THIRD))
    assert kernel.world.fenced.cipher is None


def test_an_encrypted_network_has_a_port_of_its_own() -> None:
    kernel = Kernel(on(PEER), sealed(PEER, THIRD))
    kernel.run()
    assert kernel.world.fenced.guard == GuardTable(LOCAL, 4789, 4790, (PEER, THIRD))
    assert kernel.world.links["n1"].link.port == 4789
    assert kernel.world.links["n2"].link.port == 4790
    secrets = tuple(Secret(number, bytes([number]) * 32) for number in (1, 2, 3))
    assert kernel.world.fenced.cipher == CipherTable(LOCAL, 4790, (PEER, THIRD), 2, secrets)


def test_the_port_of_the_others_is_guarded_on_a_node_that_has_encrypted_ones_only() -> None:
    """Else its processes could speak there in its name, to members that carry the others too."""
    kernel = Kernel(with_(sealed(PEER), port=5000))
    kernel.run()
    assert (kernel.world.fenced.guard.port, kernel.world.fenced.guard.sealed) == (5000, 5001)


def test_fences_stand_before_anything_is_sent() -> None:
    kinds = [type(action).__name__ for action in Kernel(sealed(PEER)).run()]
    assert kinds[:2] == ["Guard", "Cipher"]
    assert kinds.index("Ensure") < kinds.index("Forward")


def test_who_comes_is_let_in_before_and_who_goes_is_shut_out_after() -> None:
    kernel = Kernel(on(PEER))
    kernel.run()
    done = change(kernel, on(THIRD))
    assert done[0] == guarding.Guard(GuardTable(LOCAL, 4789, 0, (PEER, THIRD)))
    assert done[-1] == guarding.Guard(GuardTable(LOCAL, 4789, 0, (THIRD,)))
    assert any(isinstance(action, p.Forward) and action.remove for action in done[1:-1])


def test_the_last_network_takes_the_fences_with_it() -> None:
    kernel = Kernel(sealed(PEER))
    kernel.run()
    assert [type(action).__name__ for action in change(kernel)] == ["Drop", "Serve", "Guard", "Cipher"]
    assert kernel.world.fenced == guarding.Fenced()


def test_the_last_encrypted_network_takes_the_encryption_with_it() -> None:
    kernel = Kernel(sealed(PEER), on(PEER))
    kernel.run()
    change(kernel, on(PEER))
    assert kernel.world.fenced == guarding.Fenced(GuardTable(LOCAL, 4789, 0, (PEER,)))


def test_what_an_earlier_run_left_goes_once_the_leader_has_told_everything() -> None:
    kernel = Kernel()
    left = guarding.Fenced(guard_left=True, cipher_left=True)
    kernel.world = replace(kernel.world, fenced=left, complete=False)
    assert kernel.run() == []
    kernel.world = replace(kernel.world, complete=True)
    assert kernel.run() == [guarding.Guard(None), guarding.Cipher(None)]


def test_a_turn_of_the_ring_changes_nothing_but_the_encryption() -> None:
    kernel = Kernel(sealed(PEER), on(PEER))
    kernel.run()
    turned = (*KEYS[1:], NetworkKey(4, "04" * 32))
    assert [type(one).__name__ for one in change(kernel, sealed(PEER, keys=turned, sending=3), on(PEER))] == [
        "Cipher"
    ]
    assert kernel.world.fenced.cipher.sending == 3


def test_an_agent_without_secrets_still_asks_for_encryption() -> None:
    """After a restart without a manager: what is not in the kernel already does not pass, never in the clear."""
    kernel = Kernel(sealed(PEER, keys=()))
    kernel.run()
    assert kernel.world.fenced.cipher == CipherTable(LOCAL, 4790, (PEER,))


def test_what_waits_for_what() -> None:
    tables = {"n1": on(PEER), "n2": sealed(PEER)}
    plain, crypt = (p.Ensure(share.link_of(one, ME, LOCAL)) for one in tables.values())
    station = next(iter(share.neighbours(tables["n1"], ME)))
    for failed, action, waits in (
        (set(), plain, False), ({"Guard"}, plain, True), ({"Cipher"}, plain, False), ({"Cipher"}, crypt, True),
        ({"Guard"}, p.Forward("n1", add=(station,)), True), ({"Guard"}, p.Forward("n1", remove=(station,)), False),
        ({"Cipher"}, p.Forward("n2", add=(station,)), True), ({"n1"}, plain, True), ({"n1"}, crypt, False),
        ({"Guard"}, guarding.Guard(None), True), ({"Guard"}, p.Drop("n1"), False),
        ({"Balance a"}, p.Balance("b", None, None), False), ({"Balance a"}, p.Balance("a", None, None), True),
    ):  # fmt: skip
        assert p.blocked(action, failed, tables) is waits, (failed, action)


def test_secrets_are_in_no_text() -> None:
    kernel = Kernel(sealed(PEER))
    done = kernel.run()
    assert "\\x02" not in repr(done)
    assert repr(Secret(7, b"word")) == "Secret(number=7)"


worlds = st.lists(
    st.builds(
        lambda name, others, encrypted: with_(
            sealed(*others) if encrypted else on(*others), id=f"{name}{'e' if encrypted else ''}"
        ),
        st.sampled_from(["a", "b"]), st.sets(st.sampled_from([PEER, THIRD, "2001:db8::1"])), st.booleans(),
    ),
    max_size=3, unique_by=lambda one: one.id,
)  # fmt: skip


@given(before=worlds, after=worlds)
@settings(max_examples=80, deadline=None)
def test_whatever_changes_nobody_is_shut_out_while_he_is_wanted(
    before: list[Table], after: list[Table]
) -> None:
    kernel = Kernel(*before)
    kernel.run()
    world = kernel.world
    kernel.world = replace(world, tables={one.id: one for one in after})
    always = {peer for one in before for peer in one.peers} & {
        peer for one in after for peer in one.peers
    } - {LOCAL}
    while actions := p.plan(kernel.world):
        for action in actions:
            kernel.do(action)
            fenced = kernel.world.fenced
            if isinstance(action, p.Ensure):
                table = kernel.world.tables[action.link.network_id]
                assert set(table.peers) - {LOCAL} <= set(fenced.guard.peers)
                assert not table.encrypted or set(table.peers) - {LOCAL} <= set(fenced.cipher.peers)
            if fenced.guard is not None:
                assert always <= set(fenced.guard.peers)
    assert kernel.world.fenced.guard == guarding.guard_of(kernel.world.tables, LOCAL)
    assert kernel.world.fenced.cipher == guarding.cipher_of(kernel.world.tables, LOCAL)
