"""JUDGEMENT: pure functions from (now, world) to a Plan; one concern a file."""
