"""Settings of the replicated log: every time, size and window in one place.

What belongs here: numbers and the reason for them. What does not: anything that uses them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Timings in seconds, sizes in bytes, lengths in log entries.

    The defaults let writes succeed again within about two seconds of the loss of the leader.
    """

    heartbeat: float = 0.15
    """How often the leader speaks to each member when there is nothing else to say."""
    election_min: float = 1.0
    """Least silence of the leader before an election; also the window of leader stickiness and of
    check-quorum, so a leader cut off from the majority steps down about as soon as a new one rises."""
    election_max: float = 2.0
    """Greatest silence: the wait is drawn between the two, so that members do not collide."""
    hint_min: float = 0.15
    """When the connection to the leader breaks, the wait is drawn anew between `hint_min` and
    `hint_max`: a dead process is noticed faster than silence. Pre-votes keep this safe."""
    hint_max: float = 0.5
    tick: float = 0.03
    """The slow timer: the longest time between two turns."""
    notice: float = 0.0005
    """How soon the others are told that an entry is committed, where no entry that follows says it before.
    The proposer is answered meanwhile."""
    hedge: float = 0.01
    """Readers' questions go to the members that answer soonest, as many as a majority takes; what these did
    not answer in this time is asked of everyone."""
    resend: float = 1.0
    """Entries in flight that were not answered for so long are sent again."""
    max_entry: int = 1_500_000
    """Largest proposal; below `batch`, so an entry never has to be cut in pieces."""
    batch: int = 2 * 1024 * 1024
    """Entries of one message stop growing here."""
    window: int = 4 * 1024 * 1024
    """Unanswered bytes of entries in flight to one member."""
    window_messages: int = 64
    """Unanswered messages with entries in flight to one member."""
    chunk: int = 128 * 1024
    """One piece of a snapshot."""
    chunks_in_flight: int = 4
    """Unanswered pieces of a snapshot: heartbeats never wait behind more than these."""
    proposals: int = 4096
    """Proposals that may wait for a turn; more callers wait outside."""
    turn_bytes: int = 4 * 1024 * 1024
    """Proposals appended in one turn (one disk write)."""
    apply_entries: int = 1000
    """Entries applied in one turn at most."""
    apply_seconds: float = 0.02
    """No further entry is applied in a turn that did so for this long."""
    snapshot_entries: int = 10_000
    """Applied entries after which the state is saved and the log trimmed."""
    snapshot_bytes: int = 64 * 1024 * 1024
    """Bytes of log after which the same happens."""
    snapshot_retry: float = 10.0
    """Pause after a snapshot that could not be stored."""
    keep_entries: int = 500
    """Entries kept before the snapshot, so that a slow follower needs no snapshot."""
    promote_lag: int = 64
    """A learner this close to the end of the log becomes a voter."""
    keep_bytes: int = 16 * 1024 * 1024
    """And no more bytes of them than this."""
    max_snapshot: int = 2 * 1024 * 1024 * 1024
    """Larger snapshots are refused on arrival."""
    inbox: int = 1024
    """Messages that may wait for a turn before the channels are read no further."""
    dial_min: float = 0.05
    """First pause before a broken channel is dialled again; doubles, with jitter, up to `dial_max`."""
    dial_max: float = 1.0
    dial_timeout: float = 2.0
