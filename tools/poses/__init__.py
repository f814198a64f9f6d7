"""Poses of people in videos: estimation, tracking, smoothing, retargeting."""
