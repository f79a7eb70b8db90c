"""Fuzzing: `python -m tests.fuzz` (`make fuzz`) for minutes; tests/test_fuzz.py a fixed number of examples of each."""
