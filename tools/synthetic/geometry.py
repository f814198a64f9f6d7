"""Angles, directions and rotations, in the coordinates that the package describes."""

import numpy as np


def wrapped(angle):
    """The same direction as `angle`, within -pi..pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def unit(vectors):
    """(..., 3) vectors scaled to length 1; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def forward(yaw):
    """(..., 3) horizontal unit vectors in the direction `yaw`."""
    return np.stack([np.sin(yaw), np.zeros_like(yaw), np.cos(yaw)], -1)


def rotation(yaw, pitch, roll):
    """(..., 3, 3) rotations by roll, then pitch, then yaw, each (...).

    A positive pitch bends forwards, a positive roll lifts the left side. The columns of a rotation are the
    rotated body's own left, up and forward.
    """
    zeros, ones = np.zeros_like(yaw), np.ones_like(yaw)

    def stack(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in (yaw, pitch, roll))
    about_up = stack((cy, zeros, sy), (zeros, ones, zeros), (-sy, zeros, cy))
    about_left = stack((ones, zeros, zeros), (zeros, cp, -sp), (zeros, sp, cp))
    about_forward = stack((cr, -sr, zeros), (sr, cr, zeros), (zeros, zeros, ones))
    return about_up @ about_left @ about_forward


def rotated(rotations, vectors):
    """(T, 3) vectors, each multiplied by its own rotation (T, 3, 3)."""
    return np.einsum("tij,tj->ti", rotations, vectors)
