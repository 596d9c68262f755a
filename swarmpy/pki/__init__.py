"""TRUST: cluster CA, join tokens, node certificates, sealing. Pure but for key generation."""
