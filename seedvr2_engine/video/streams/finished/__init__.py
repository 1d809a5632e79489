"""What FFmpeg's muxers cannot write, put into a finished file."""
