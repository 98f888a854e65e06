"""The surroundings of every test, whatever started the tests."""

import os
import signal

# A job in the background, and all it starts, ignores interrupts; processes that tests start are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Workers are told the width of their starter's terminal; tables are as wide as tests say.
os.environ.pop("COLUMNS", None)
