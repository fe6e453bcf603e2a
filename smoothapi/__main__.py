"""`python -m smoothapi`: the command line, where no script is on the path."""

from smoothapi.cli import main

main()
