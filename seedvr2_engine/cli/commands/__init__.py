"""The subcommands: one file each, or a few that belong together."""
