"""Pictures of a person who moves in a studio, drawn for `tools/make_dataset.py`.

`motion` decides what the person does, `steps` where the feet stand, `gestures` where the arms point, and
`body` computes every joint from that. `view` is the camera. `person`, `room` and `skeleton` paint, with the
brushes of `paint`; `frames` puts whole pictures together.

Coordinates are in metres: x to the right of the picture, y up from the floor, z towards the camera. Angles
are in radians: at a yaw of 0 the person faces the camera, a positive yaw turns to the right of the picture.
"""
