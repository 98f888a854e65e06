"""Processes that tests start can be interrupted, although a job in the background, and all it starts, ignores that."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
