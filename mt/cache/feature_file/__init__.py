"""The feature file: its format, and creating, writing, resuming, reading and verifying one."""
