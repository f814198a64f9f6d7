"""What the person does: a random sequence of walks, turns, waves, crouches, jumps and dance steps."""

from dataclasses import dataclass, field

import numpy as np

from . import gestures as g
from .curves import hill, ramp, through, travel, window
from .steps import Hop, Walk

FPS = 30
DEPTH_RANGE = 0.30  # how far the person strays towards the camera or away from it, m

# One of each row in random order, with walks between them, then all over again.
ACTIONS = (("wave",), ("crouch",), ("jump",), ("turn", "spin"), ("gesture", "groove"))


@dataclass
class Tracks:
    """Everything that changes over time, (T,) each: place and lift of the pelvis in metres, angles in
    radians; and the events that `steps` and `gestures` turn into feet and arms."""

    t: np.ndarray
    x: np.ndarray
    z: np.ndarray
    yaw: np.ndarray
    lift: np.ndarray
    lean: np.ndarray
    roll: np.ndarray
    twist: np.ndarray
    nod: np.ndarray
    look: np.ndarray
    moves: list = field(default_factory=list)
    gestures: list = field(default_factory=list)


def choreograph(rng, frames, half_range):
    """A take of `frames` frames in which the pelvis stays within `half_range` metres of the middle."""
    dancer = _Dancer(rng, frames, half_range)
    dancer.rest(0.5)
    dancer.walk()
    while dancer.now < frames / FPS:
        for row in rng.permutation(len(ACTIONS)):
            getattr(dancer, rng.choice(ACTIONS[row]))()
            if rng.random() < 0.85:
                dancer.walk()
            if rng.random() < 0.25:
                dancer.rest(rng.uniform(0.2, 0.5))
    return dancer.tracks


class _Dancer:
    """Writes one action after another on the tracks; `now` is where the next one starts, in seconds."""

    def __init__(self, rng, frames, half_range):
        t = np.arange(frames) / FPS
        self.rng, self.now, self.half_range = rng, 0.0, half_range
        self.x = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0) * half_range
        self.z = rng.uniform(-0.5, 0.5) * DEPTH_RANGE
        self.facing = rng.uniform(-0.6, 0.6)
        self.beat = rng.uniform(0.44, 0.52)
        self.stride = rng.uniform(0.56, 0.66)
        self.tempo = rng.uniform(1.4, 1.9)
        self.tracks = Tracks(t, *(np.zeros(frames) for _ in range(9)))
        self.tracks.x += self.x
        self.tracks.z += self.z
        self.tracks.yaw += self.facing
        for track, size in (("roll", 0.02), ("twist", 0.05), ("nod", 0.05), ("look", 0.22)):
            getattr(self.tracks, track)[:] += size * self._drift(t)
        self.tracks.lift -= 0.003 * (1 + self._drift(t))

    def rest(self, seconds):
        """Stand and breathe."""
        self.now += seconds

    def walk(self):
        """Cross the floor to a place well away from here, sometimes with a gesture on the way."""
        x, z = self._goal()
        way = np.hypot(x - self.x, z - self.z)
        self._face(np.arctan2(x - self.x, z - self.z), at_most=1.75)
        count = max(3, round(way / self.stride) + 2)
        start, end = self.now, self.now + count * self.beat
        turn = _wrapped(np.arctan2(x - self.x, z - self.z) - self.facing)
        progress = travel(self.tracks.t, start + 0.3 * self.beat, end, 1.2 * self.beat)
        self.tracks.x += (x - self.x) * progress
        self.tracks.z += (z - self.z) * progress
        self.tracks.yaw += turn * ramp(self.tracks.t, start, start + 2.2 * self.beat)
        self.tracks.lean += 0.05 * window(self.tracks.t, start, end, 0.5)
        # The foot on the inner side of the turn goes first, so that the legs never cross.
        self.tracks.moves.append(Walk(start, end, count, 0 if turn > 0 else 1))
        if self.rng.random() < 0.3 and end - start > 2.0:
            self._gesture(self._arm(), start + 0.3, end - 0.2, g.waving(self.tempo))
        self.x, self.z, self.facing, self.now = x, z, self.facing + turn, end

    def turn(self):
        """Turn on the spot to look somewhere else: mostly sideways, sometimes away."""
        self._face(self.rng.choice([-1.0, 1.0]) * self.rng.uniform(0.8, 2.6))

    def spin(self):
        """Once around on the spot."""
        self._pivot(self.rng.choice([-2.0, 2.0]) * np.pi, 0.40)

    def wave(self):
        """Wave to the camera with one arm, rarely with both."""
        self._face_camera()
        end = self.now + self.rng.uniform(1.6, 2.6)
        arms = (0, 1) if self.rng.random() < 0.3 else (self._arm(),)
        shape = g.waving(self.tempo, self.rng.uniform(-0.05, 0.35))
        for arm in arms:
            self._gesture(arm, self.now, end, shape)
        if len(arms) == 1:
            self.tracks.roll += (0.05 if arms[0] == 0 else -0.05) * window(self.tracks.t, self.now, end, 0.5)
        self.now = end - 0.2

    def gesture(self):
        """One of the arm gestures: hands on hips, pointing, arms wide, up, clapping, thinking."""
        self._face_camera()
        end = self.now + self.rng.uniform(1.5, 2.3)
        arm = self._arm()
        left, right = [
            (g.ON_HIP, g.ON_HIP),
            (g.POINTING, g.ON_HIP),
            (g.THINKING, None),
            (g.OPEN_WIDE, g.OPEN_WIDE),
            (g.UP, g.UP),
            (g.clapping(self.tempo), g.clapping(self.tempo)),
            (g.sweeping(0.55), g.sweeping(0.55)),
        ][self.rng.integers(7)]
        self._gesture(arm, self.now, end, left)
        if right:
            self._gesture(1 - arm, self.now + 0.1, end, right)
        self.now = end - 0.2

    def crouch(self):
        """Down on bent knees, stay, and up again."""
        depth, down = self.rng.uniform(0.30, 0.44), self.rng.uniform(0.55, 0.75)
        end = self.now + 2 * down + self.rng.uniform(0.3, 0.9)
        bent = window(self.tracks.t, self.now, end, down)
        self.tracks.lift -= depth * bent
        self.tracks.lean += 1.3 * depth * bent
        for arm in (0, 1):
            self._gesture(arm, self.now + 0.1, end - 0.1, g.FORWARD, fade=down)
        self.now = end

    def jump(self):
        """Squat, swing the arms, fly, land softly; often some way forwards, sometimes with a turn."""
        height, air = self.rng.uniform(0.19, 0.26), self.rng.uniform(0.44, 0.52)
        off = self.now + 0.52
        land, end = off + air, off + air + 0.62
        speed = 4 * height / air
        self.tracks.lift += through(
            self.tracks.t,
            [
                (self.now, 0, 0),
                (off - 0.20, -0.25, 0),
                (off, 0.02, speed),
                (land, 0.02, -speed),
                (land + 0.20, -0.20, 0),
                (end, 0, 0),
            ],
        )
        for middle in (off - 0.20, land + 0.20):
            self.tracks.lean += 0.38 * hill(self.tracks.t, middle - 0.32, middle + 0.32)
        self._fly(off, land, height)
        for arm in (0, 1):
            self._gesture(arm, self.now, off + 0.05, g.BACKWARD, fade=0.25)
            self._gesture(arm, off - 0.15, end - 0.15, g.FLYING, fade=0.28)
        self.now = end

    def groove(self):
        """Dance on the spot: bounce in the knees, sway and pump the arms."""
        self._face_camera()
        tempo, beats = self.tempo * 0.9, 4
        end = self.now + beats / tempo
        time, inside = self.tracks.t - self.now, window(self.tracks.t, self.now, end, 0.3)
        self.tracks.lift -= 0.045 * inside * (1 - np.cos(2 * np.pi * tempo * time))
        self.tracks.roll += 0.13 * inside * np.sin(np.pi * tempo * time)
        self.tracks.twist += 0.30 * inside * np.sin(np.pi * tempo * time)
        for arm in (0, 1):
            self._gesture(arm, self.now, end, g.pumping(tempo / 2, arm / 2), fade=0.4)
        self.now = end

    def _fly(self, off, land, height):
        """The flight of a jump, as far forwards as there is room."""
        t, way = self.tracks.t, self.rng.uniform(0.0, 0.35)
        x = self.x + way * np.sin(self.facing)
        z = self.z + way * np.cos(self.facing)
        if abs(x) > self.half_range or abs(z) > DEPTH_RANGE:
            x, z = self.x, self.z
        turn = self.rng.choice([0.0, 0.0, -1.2, 1.2])
        progress = ramp(t, off - 0.12, land + 0.12)
        self.tracks.x += (x - self.x) * progress
        self.tracks.z += (z - self.z) * progress
        self.tracks.yaw += turn * progress
        self.tracks.moves.append(Hop(off, land, height + 0.03))
        self.x, self.z, self.facing = x, z, self.facing + turn

    def _goal(self):
        """A place to walk to: the other side of the picture more often than this one."""
        side = -np.sign(self.x) if self.rng.random() < 0.85 else np.sign(self.x)
        x = side * self.rng.uniform(0.35, 1.0) * self.half_range
        if abs(x - self.x) < 0.4 * self.half_range:
            x = -x
        return x, self.rng.uniform(-1.0, 1.0) * DEPTH_RANGE

    def _arm(self):
        return int(self.rng.integers(2))

    def _gesture(self, arm, start, end, shape, fade=g.FADE):
        self.tracks.gestures.append(g.Gesture(arm, start, end, shape, fade))

    def _face_camera(self):
        """Turn to the camera when the person looks too far away for a gesture to be seen."""
        if abs(_wrapped(self.facing)) > 1.0:
            self._face(self.rng.uniform(-0.6, 0.6))

    def _face(self, yaw, at_most=0.0):
        """Turn the short way to `yaw`, unless no more than `at_most` is missing."""
        missing = _wrapped(yaw - self.facing)
        if abs(missing) > at_most:
            self._pivot(missing, 0.42)

    def _pivot(self, angle, beat):
        """Turn by `angle` on the spot in small steps of `beat` seconds; the head goes ahead."""
        count = max(2, int(np.ceil(abs(angle) / 0.85)))
        start, end = self.now, self.now + count * beat
        self.tracks.yaw += angle * travel(self.tracks.t, start, end, 0.8 * beat)
        ahead = np.sign(angle) * window(self.tracks.t, start - 0.15, end - 0.25, 0.35)
        self.tracks.look += 0.40 * ahead
        self.tracks.twist += 0.12 * ahead
        self.tracks.moves.append(Walk(start, end, count, 0 if angle > 0 else 1))
        self.facing, self.now = self.facing + angle, end

    def _drift(self, t):
        """(T,) slow random wandering between about -1 and 1."""
        waves = zip(self.rng.uniform(0.12, 0.45, 3), self.rng.uniform(0, 2 * np.pi, 3), strict=True)
        return sum(np.sin(2 * np.pi * rate * t + phase) for rate, phase in waves) / 2


def _wrapped(angle):
    """The same direction within -pi..pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
