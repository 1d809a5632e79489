"""A file before its frames: opened, its stream chosen, its packets counted and held against its promises."""
