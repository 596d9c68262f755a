from __future__ import annotations

import pytest

from swarmpy.model import errors
from swarmpy.pki import rpc

ROLES = {"none", "worker", "manager"}


@pytest.mark.parametrize("rule", rpc.TABLE.values(), ids=lambda rule: rule.method)
def test_rows_are_whole(rule: rpc.Rule) -> None:
    assert rule.roles <= ROLES
    assert rule.roles, "a method that nobody may call is no method"
    assert 0 < rule.max_body <= 16 * rpc.MIB
    assert 0 < rule.max_reply <= 16 * rpc.MIB
    if "none" in rule.roles:
        assert rule.method in {"ca.bundle", "join"}, "a new open door needs a decision"
        assert rule.kind == "call"
        assert rule.max_body <= 64 * rpc.KIB
        assert not rule.own_node
    for role in ROLES:
        assert (rpc.authorize(rule.method, rule.kind, role) is None) == (role in rule.roles)
        other = "call" if rule.kind == "channel" else "channel"
        refusal = rpc.authorize(rule.method, other, role)
        assert refusal is not None
        assert refusal.reason == rpc.UNKNOWN_METHOD


def test_unlisted_is_denied() -> None:
    for role in (*ROLES, "admin", ""):
        for method in ("", "nothing", "raft ", "RAFT", "__class__"):
            refusal = rpc.authorize(method, "call", role)
            assert refusal is not None
            assert refusal.message
    assert rpc.authorize("raft", "channel", "admin") is not None


def test_codes_are_the_models() -> None:
    known = {kind.__name__ for kind in errors.Refusal.__subclasses__()}
    assert set(rpc.CODES.values()) <= known
    assert rpc.Refusal(rpc.BUSY, "x").code == "Unavailable"


def test_own_node() -> None:
    assert rpc.authorize_body("session", "n1", {"node_id": "n1"}) is None
    assert rpc.authorize_body("session", "n1", {}) is None
    assert rpc.authorize_body("raft", "n1", {"node_id": "n2"}) is None
    assert rpc.authorize_body("nothing", "n1", {"node_id": "n2"}) is None
    refusal = rpc.authorize_body("session", "n1", {"node_id": "n2"})
    assert refusal is not None
    assert refusal.code == "PermissionDenied"


def test_revoked() -> None:
    heard = []
    revoked = rpc.Revoked(["n1"], ["ab"])
    stop = revoked.listen(lambda: heard.append((revoked.nodes, revoked.serials)))
    assert revoked.refuse("n1", "1").reason == rpc.REVOKED
    assert revoked.refuse("n2", "ab").reason == rpc.REVOKED
    assert revoked.refuse("n2", "1") is None
    assert revoked.refuse("", "") is None
    revoked.replace(["n1"], ["ab"])
    assert heard == [], "nothing changed"
    revoked.revoke(node_id="n2")
    revoked.revoke(serial="cd")
    assert heard[-1] == ({"n1", "n2"}, {"ab", "cd"})
    revoked.replace([], [])
    assert revoked.refuse("n1", "ab") is None
    stop()
    revoked.revoke(node_id="n3")
    assert len(heard) == 3
