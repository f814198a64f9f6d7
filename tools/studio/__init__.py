"""A drawn person who moves in a drawn studio: what `tools/make_dataset.py` puts on its pictures.

`motion` decides what the person does, `steps` where the feet go, `body` where every joint is then,
`view` where the camera sees it, `person`, `room` and `skeleton` paint it with the brushes of `paint`,
and `frames` puts a whole picture together.

World units are metres and seconds: x to the right of the picture, y up from the floor, z towards the
camera. A yaw of 0 faces the camera, a positive yaw turns towards the right of the picture.
"""
