"""The kernels of the VAE engine, each with its reference in FP32 PyTorch (`reference`), and what chooses among them.

Tensors are NDHWC. The life of a resnet's half: `conv3d` multiplies 8-bit frames, leaves a 16-bit tensor and each tile's
statistics; `groupnorm` merges these and writes the next convolution's 8-bit frames into a ring buffer.
"""
