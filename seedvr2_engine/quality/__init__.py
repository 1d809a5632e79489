"""What can be measured of pictures and clips."""
