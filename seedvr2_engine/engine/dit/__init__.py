"""The transformer on kernels: in few passes, and with weights that are packed or on the host."""
