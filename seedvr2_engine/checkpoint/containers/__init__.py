"""How the two containers are read: safetensors and GGUF, plain and quantised."""
