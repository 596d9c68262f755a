"""MEMORY: changes, the immutable indexed Snapshot, apply, named invariants. Pure."""
