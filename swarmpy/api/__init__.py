"""HTTP: the Docker-compatible endpoints, our own endpoints, the pass-through to the Engine."""
