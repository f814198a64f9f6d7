"""Poses of people in videos: found, followed, repaired and painted."""
