"""Whole pictures of any size: the person in the studio, and the pose."""

from functools import cache

import numpy as np

from .person import paint_person
from .room import Room
from .skeleton import JOINT_NUMBERS, paint_bones
from .view import View

MIN_ROWS = 128  # smaller pictures are painted enlarged to at least this height, then averaged


def view_of(width, height):
    """The `View` for painting pictures of `width` x `height`: as large, or larger by a whole factor."""
    zoom = -(-MIN_ROWS // height) if height < MIN_ROWS else 1
    return View(width * zoom, height * zoom)


@cache
def _room(width, height):
    return Room(view_of(width, height))


def paint_frame(figure, frame, width, height):
    """(height, width, 3) uint8 picture of frame `frame` of a `Figure`."""
    room = _room(width, height)
    picture = room.with_shadow(figure.joints[frame])
    person = paint_person(figure, frame, room.view)
    picture *= 1.0 - person.alpha
    picture += person.color
    return to_uint8(picture, height)


def paint_pose(figure, frame, width, height):
    """(height, width, 3) uint8 pose picture of frame `frame` of a `Figure`."""
    return paint_places(pose_places(figure, width, height)[frame], width, height)


def pose_places(figure, width, height):
    """(T, J, 2): column and row of `skeleton.JOINTS` in pictures of `width` x `height`."""
    view = view_of(width, height)
    return view.pixels(figure.joints)[:, JOINT_NUMBERS] * (height / view.height)


def paint_places(places, width, height):
    """(height, width, 3) uint8 pose picture of joints at places (J, 2), see `skeleton.paint_bones`."""
    view = view_of(width, height)
    return to_uint8(paint_bones(places * (view.height / height), view.height, view.width), height)


def to_uint8(picture, height):
    """(3, zoom * height, zoom * width) float in [0, 1] -> (height, width, 3) uint8."""
    zoom = picture.shape[1] // height
    if zoom > 1:
        # Adding slices is several times faster than a mean over two short axes.
        tall = sum(picture[:, i::zoom] for i in range(zoom))
        picture = sum(tall[:, :, i::zoom] for i in range(zoom)) / np.float32(zoom * zoom)
    return (np.clip(picture, 0.0, 1.0) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
