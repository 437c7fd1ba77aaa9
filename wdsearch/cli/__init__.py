"""The commands and their output in a terminal; each command calls one library function."""


def main() -> None:
    """Entry point of the command `wdsearch`; imports are made at the call."""
    from wdsearch.cli.app import main as run

    run()
