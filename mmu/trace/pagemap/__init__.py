"""Page maps: which frame stood behind each page of a recorded program, and their readers."""
