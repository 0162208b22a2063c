"""Facial Action Unit recognition in video by pairwise ranking with learned uncertainty."""

__version__ = "0.1.0"
