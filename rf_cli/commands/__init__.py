"""One file a command: load, call, print. Heavy imports stay inside the functions."""
