"""Async shells of a manager: the one writer, dispatcher, control and certificate service."""
