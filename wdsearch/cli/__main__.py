"""`python -m wdsearch.cli` is the command `wdsearch`: launched workers and crontabs call it."""

from wdsearch.cli.app import main

main()
