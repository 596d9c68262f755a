"""Async shells of a node: session with the managers, worker, reporter."""
