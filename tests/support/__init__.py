"""What several tests need: real parts, started once, that clean up after themselves."""
