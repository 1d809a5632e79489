"""The command `seedvr2`: parse arguments, call the library, map errors to exit codes."""

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    # Before anything else is imported, which takes a second in which Ctrl-C would be a traceback.
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .app import main as run

    run()
