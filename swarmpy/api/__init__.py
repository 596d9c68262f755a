"""HTTP on the node's unix socket: Docker-compatible endpoints, our own, and the pass-through."""
