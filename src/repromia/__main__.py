"""`python -m repromia`: the command, where its script is not on the path."""

from repromia.cli import main

main()
