"""A synthetic person who moves in a room, rendered for `tools/make_dataset.py`.

`motion` decides what the person does, `steps` where the feet stand, `gestures` where the arms point, and
`body` computes every joint from that. `view` is the camera. `person`, `room` and `skeleton` render, using
the primitives in `shapes`; `frames` composes the final images.

Coordinates are in metres: x to the right of the image, y up from the floor, z towards the camera. Angles
are in radians: at a yaw of 0 the person faces the camera, a positive yaw turns to the right of the image.
"""
