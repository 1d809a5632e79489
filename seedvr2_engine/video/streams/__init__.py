"""What travels with the pictures: sound, subtitles, chapters, metadata."""
