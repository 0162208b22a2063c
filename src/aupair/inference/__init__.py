"""Predict with a trained model (a bundle): recognise AUs in videos and in aligned faces."""
