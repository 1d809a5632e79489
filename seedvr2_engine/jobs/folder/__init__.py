"""The folder of a job: what it is made from, and the units that are finished."""
