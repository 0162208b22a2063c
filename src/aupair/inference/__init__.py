"""A bundle at work: recognise AUs in videos and in aligned faces."""
