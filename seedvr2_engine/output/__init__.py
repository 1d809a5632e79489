"""How a result gets its name: unfinished under one of its own, locked, and moved into place only when it is whole."""
