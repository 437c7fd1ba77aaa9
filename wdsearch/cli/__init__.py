"""The commands, and what they show in a terminal."""


def main() -> None:
    """Entry point of the command `wdsearch`; what it needs is imported at the call."""
    from wdsearch.cli.app import main as run

    run()
