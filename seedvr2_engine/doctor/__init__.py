"""Whether everything is right on a machine: what it has, and its kernels against their references."""
