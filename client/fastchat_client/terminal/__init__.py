"""The chat in a terminal: what is shown (`talk`, `render`, `text`) and on what (`prompt`, `plain`)."""
