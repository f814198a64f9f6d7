"""Whole images of any size: the person in the studio, and the pose."""

from functools import cache

import numpy as np

from .person import render_person
from .room import Room
from .skeleton import JOINT_NUMBERS, draw_bones
from .view import View

MIN_ROWS = 128  # smaller images are rendered at a multiple of their size, at least this high, then averaged


def view_of(width, height):
    """The `View` for rendering images of `width` x `height`: that size, or an integer multiple."""
    zoom = -(-MIN_ROWS // height) if height < MIN_ROWS else 1
    return View(width * zoom, height * zoom)


@cache
def _room(width, height):
    return Room(view_of(width, height))


def render_frame(figure, frame, width, height):
    """(height, width, 3) uint8 image of frame `frame` of a `Figure`."""
    room = _room(width, height)
    image = room.with_shadow(figure.joints[frame])
    person = render_person(figure, frame, room.view)
    image *= 1.0 - person.alpha
    image += person.color
    return to_uint8(image, height)


def render_pose(figure, frame, width, height):
    """(height, width, 3) uint8 pose image of frame `frame` of a `Figure`."""
    return draw_keypoints(pose_keypoints(figure, width, height)[frame], width, height)


def pose_keypoints(figure, width, height):
    """(T, J, 2): column and row of `skeleton.JOINTS` in images of `width` x `height`."""
    view = view_of(width, height)
    return view.pixels(figure.joints)[:, JOINT_NUMBERS] * (height / view.height)


def draw_keypoints(keypoints, width, height):
    """(height, width, 3) uint8 pose image of keypoints (J, 2), see `skeleton.draw_bones`."""
    view = view_of(width, height)
    return to_uint8(draw_bones(keypoints * (view.height / height), view.height, view.width), height)


def to_uint8(image, height):
    """(3, zoom * height, zoom * width) float in [0, 1] -> (height, width, 3) uint8."""
    zoom = image.shape[1] // height
    if zoom > 1:
        # Adding slices is several times faster than a mean over two short axes.
        tall = sum(image[:, i::zoom] for i in range(zoom))
        image = sum(tall[:, :, i::zoom] for i in range(zoom)) / np.float32(zoom * zoom)
    return (np.clip(image, 0.0, 1.0) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
