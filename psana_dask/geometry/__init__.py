"""Detector geometry: where each pixel is, and images made from panels."""
