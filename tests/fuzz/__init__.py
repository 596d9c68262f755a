"""Bytes and texts that others choose, against everything that reads them; see docs/reference/testing.md."""
