"""What the person does: a random sequence of walks, turns, waves, crouches, jumps and dance steps."""

from dataclasses import dataclass, field

import numpy as np

from . import gestures
from .curves import hill, ramp, through, travel, window
from .geometry import wrapped
from .gestures import Gesture
from .steps import Hop, Walk

FPS = 30
DEPTH_RANGE = 0.30  # of the person's position, towards the camera and away from it, m

# One action of each group, the groups in random order, with walks between them; then again.
ACTIONS = (("wave",), ("crouch",), ("jump",), ("turn", "spin"), ("gesture", "groove"))


@dataclass
class Tracks:
    """The motion of the body over time, (T,) each, and the events that move feet and arms.

    x, z: position of the pelvis, m; lift: its height above that of a standing person, m; yaw: of the pelvis,
    rad; lean, roll: forwards and sideways, rad; twist: of the chest against the pelvis, rad; nod, look: of
    the head, rad; moves: `Walk` and `Hop`; gestures: `Gesture`, both in order of time.
    """

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
    """The `Tracks` of a random motion, in which the pelvis stays within `half_range` metres of the middle."""
    person = _Choreographer(rng, frames, half_range)
    person.rest(0.5)
    person.walk()
    while person.now < frames / FPS:
        for group in rng.permutation(len(ACTIONS)):
            getattr(person, rng.choice(ACTIONS[group]))()
            if rng.random() < 0.85:
                person.walk()
            if rng.random() < 0.25:
                person.rest(rng.uniform(0.2, 0.5))
    return person.tracks


class _Choreographer:
    """Adds one action after another to the tracks; `now` is the start of the next one, in seconds."""

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
        """Stand still."""
        self.now += seconds

    def walk(self):
        """Walk to a position some way off, sometimes with a gesture on the way."""
        x, z = self._goal()
        distance = np.hypot(x - self.x, z - self.z)
        self._face(np.arctan2(x - self.x, z - self.z), at_most=1.75)
        count = max(3, round(distance / self.stride) + 2)
        start, end = self.now, self.now + count * self.beat
        turn = wrapped(np.arctan2(x - self.x, z - self.z) - self.facing)
        progress = travel(self.tracks.t, start + 0.3 * self.beat, end, 1.2 * self.beat)
        self.tracks.x += (x - self.x) * progress
        self.tracks.z += (z - self.z) * progress
        self.tracks.yaw += turn * ramp(self.tracks.t, start, start + 2.2 * self.beat)
        self.tracks.lean += 0.05 * window(self.tracks.t, start, end, 0.5)
        # The foot on the inner side of the turn goes first, so that the legs never cross.
        self.tracks.moves.append(Walk(start, end, count, 0 if turn > 0 else 1))
        if self.rng.random() < 0.3 and end - start > 2.0:
            self._gesture(self._arm(), start + 0.3, end - 0.2, gestures.waving(self.tempo))
        self.x, self.z, self.facing, self.now = x, z, self.facing + turn, end

    def turn(self):
        """Turn on the spot: mostly sideways, sometimes away from the camera."""
        self._face(self.rng.choice([-1.0, 1.0]) * self.rng.uniform(0.8, 2.6))

    def spin(self):
        """Turn on the spot, once around."""
        self._pivot(self.rng.choice([-2.0, 2.0]) * np.pi, 0.40)

    def wave(self):
        """Wave to the camera with one arm, rarely with both."""
        self._face_camera()
        end = self.now + self.rng.uniform(1.6, 2.6)
        arms = (0, 1) if self.rng.random() < 0.3 else (self._arm(),)
        shape = gestures.waving(self.tempo, self.rng.uniform(-0.05, 0.35))
        for arm in arms:
            self._gesture(arm, self.now, end, shape)
        if len(arms) == 1:
            self.tracks.roll += (0.05 if arms[0] == 0 else -0.05) * window(self.tracks.t, self.now, end, 0.5)
        self.now = end - 0.2

    def gesture(self):
        """Make one of the arm gestures."""
        self._face_camera()
        end = self.now + self.rng.uniform(1.5, 2.3)
        arm = self._arm()
        left, right = [
            (gestures.ON_HIP, gestures.ON_HIP),
            (gestures.POINTING, gestures.ON_HIP),
            (gestures.THINKING, None),
            (gestures.OPEN_WIDE, gestures.OPEN_WIDE),
            (gestures.UP, gestures.UP),
            (gestures.clapping(self.tempo), gestures.clapping(self.tempo)),
            (gestures.sweeping(0.55), gestures.sweeping(0.55)),
        ][self.rng.integers(7)]
        self._gesture(arm, self.now, end, left)
        if right:
            self._gesture(1 - arm, self.now + 0.1, end, right)
        self.now = end - 0.2

    def crouch(self):
        """Bend the knees, stay down, and stand up again."""
        depth, down = self.rng.uniform(0.30, 0.44), self.rng.uniform(0.55, 0.75)
        end = self.now + 2 * down + self.rng.uniform(0.3, 0.9)
        bent = window(self.tracks.t, self.now, end, down)
        self.tracks.lift -= depth * bent
        self.tracks.lean += 1.3 * depth * bent
        for arm in (0, 1):
            self._gesture(arm, self.now + 0.1, end - 0.1, gestures.FORWARD, fade=down)
        self.now = end

    def jump(self):
        """Squat, jump and land on bent knees; often some way forwards, sometimes with a turn."""
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
            self._gesture(arm, self.now, off + 0.05, gestures.BACKWARD, fade=0.25)
            self._gesture(arm, off - 0.15, end - 0.15, gestures.FLYING, fade=0.28)
        self.now = end

    def groove(self):
        """Dance on the spot: bend the knees, sway and pump the arms."""
        self._face_camera()
        tempo, beats = self.tempo * 0.9, 4
        end = self.now + beats / tempo
        time, inside = self.tracks.t - self.now, window(self.tracks.t, self.now, end, 0.3)
        self.tracks.lift -= 0.045 * inside * (1 - np.cos(2 * np.pi * tempo * time))
        self.tracks.roll += 0.13 * inside * np.sin(np.pi * tempo * time)
        self.tracks.twist += 0.30 * inside * np.sin(np.pi * tempo * time)
        for arm in (0, 1):
            self._gesture(arm, self.now, end, gestures.pumping(tempo / 2, arm / 2), fade=0.4)
        self.now = end

    def _fly(self, off, land, height):
        """The flight of a jump: forwards where there is room, else on the spot."""
        t, distance = self.tracks.t, self.rng.uniform(0.0, 0.35)
        x = self.x + distance * np.sin(self.facing)
        z = self.z + distance * np.cos(self.facing)
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
        """x and z of a position to walk to, most often on the other side of the image."""
        side = -np.sign(self.x) if self.rng.random() < 0.85 else np.sign(self.x)
        x = side * self.rng.uniform(0.35, 1.0) * self.half_range
        if abs(x - self.x) < 0.4 * self.half_range:
            x = -x
        return x, self.rng.uniform(-1.0, 1.0) * DEPTH_RANGE

    def _arm(self):
        return int(self.rng.integers(2))

    def _gesture(self, arm, start, end, shape, fade=gestures.FADE):
        self.tracks.gestures.append(Gesture(arm, start, end, shape, fade))

    def _face_camera(self):
        """Turn to the camera, unless the person faces it well enough for a gesture to be visible."""
        if abs(wrapped(self.facing)) > 1.0:
            self._face(self.rng.uniform(-0.6, 0.6))

    def _face(self, yaw, at_most=0.0):
        """Turn the short way to `yaw`, unless at most `at_most` is missing."""
        missing = wrapped(yaw - self.facing)
        if abs(missing) > at_most:
            self._pivot(missing, 0.42)

    def _pivot(self, angle, beat):
        """Turn by `angle` on the spot in small steps of `beat` seconds; the head turns first."""
        count = max(2, int(np.ceil(abs(angle) / 0.85)))
        start, end = self.now, self.now + count * beat
        self.tracks.yaw += angle * travel(self.tracks.t, start, end, 0.8 * beat)
        ahead = np.sign(angle) * window(self.tracks.t, start - 0.15, end - 0.25, 0.35)
        self.tracks.look += 0.40 * ahead
        self.tracks.twist += 0.12 * ahead
        self.tracks.moves.append(Walk(start, end, count, 0 if angle > 0 else 1))
        self.facing, self.now = self.facing + angle, end

    def _drift(self, t):
        """(T,) a slow random motion between about -1 and 1."""
        waves = zip(self.rng.uniform(0.12, 0.45, 3), self.rng.uniform(0, 2 * np.pi, 3), strict=True)
        return sum(np.sin(2 * np.pi * rate * t + phase) for rate, phase in waves) / 2
