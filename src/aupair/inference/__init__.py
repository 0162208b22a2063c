"""Prediction with a trained model (a bundle): recognition of AUs in videos and in aligned faces."""
