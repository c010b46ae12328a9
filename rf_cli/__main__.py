"""`python -m rf_cli` is `rf`."""

from rf_cli.app import main

main()
