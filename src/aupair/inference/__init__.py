"""Prediction with a trained model (a bundle), which recognises AUs in videos and in aligned faces."""
