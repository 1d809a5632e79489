"""`python -m seedvr2_engine` is the command `seedvr2`."""

from .cli import main

main()
