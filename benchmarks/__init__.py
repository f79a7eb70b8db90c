"""What FastChat costs: the real server under load over its real wire, measured from outside. See README.md."""
