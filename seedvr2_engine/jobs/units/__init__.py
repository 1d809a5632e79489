"""Units: the parts of a job, each a pure function of source, settings and models, and the files of their results."""
