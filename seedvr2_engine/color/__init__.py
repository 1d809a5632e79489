"""The colours of the source, given back to the upscaled frames; and HDR pictures on an SDR scale."""
