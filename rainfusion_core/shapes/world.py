"""The world that `shapes` is trained on: scenes of one or two shapes over a background, and the words for them.

A `Scene` says what is seen, `drawing.draw` renders it at any size and length, `caption` words it. All lengths are
fractions of the shorter side of the frame, and a motion always takes the whole clip.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring")
SIZES = {"small": 0.16, "large": 0.25}  # radius
DIRECTIONS = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up right": (0.8, -0.8),
    "up left": (-0.8, -0.8),
    "down right": (0.8, 0.8),
    "down left": (-0.8, 0.8),
}
GESTURES = ("growing", "shrinking", "spinning", "orbiting", "bouncing", "fading")
MOTIONS = (*DIRECTIONS, *GESTURES)
HASTES = ("slowly", "quickly")
HASTELESS = ("growing", "shrinking", "fading")  # these take the whole clip, whatever the haste
ROUND = ("circle", "ring")  # looks the same when it spins
STYLES = ("plain", "gradient", "striped", "checkered", "dotted", "split")
TWO_COLOURED = ("striped", "checkered", "split")
PANS = ("left", "right")
RELATIONS = ("and", "in front of", "behind")
COLOURS = {
    "red": (0.90, 0.12, 0.15),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (1.00, 0.92, 0.15),
    "green": (0.15, 0.75, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.22, 0.95),
    "purple": (0.60, 0.15, 0.85),
    "white": (0.97, 0.97, 0.97),
}
# backgrounds are muted versions of the colours, so that a shape stands out on any of them
BACKGROUNDS = {
    name: tuple(0.55 * channel + 0.12 for channel in rgb) for name, rgb in COLOURS.items()
}


@dataclass(frozen=True)
class Subject:
    """One shape. `place` is the middle of its path, in frame widths and heights."""

    shape: str
    size: str
    colour: str
    motion: str
    haste: str
    place: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What one clip shows.

    Attributes:
        subjects: one or two; `relation` stands between two, and says which one hides the other.
        second: the other colour of a two-coloured background, or None.
        pan: where the camera turns, so that the background runs the other way, or None.
        phase: of the background's pattern, in [0, 1).
    """

    subjects: tuple[Subject, ...]
    relation: str
    background: str
    second: str | None
    style: str
    pan: str | None
    phase: float


def random_scene(rng: random.Random, *, held_out: bool = False, subjects: int = 0) -> Scene:
    """A scene to train on, or one whose first shape, colour and background never meet in training.

    Args:
        subjects: one or two; 0 draws two in a quarter of all scenes.
    """
    while True:
        count = subjects or 1 + (rng.random() < 0.25)
        style = rng.choices(STYLES, (3, 2, 3, 2, 2, 2))[0]
        background, second, *colours = rng.sample(sorted(COLOURS), 4)
        shapes = [rng.choice(SHAPES) for _ in range(count)]
        if is_held_out(shapes[0], colours[0], background) == held_out:
            break
    relation = rng.choice(RELATIONS) if count == 2 else ""
    return Scene(
        tuple(_subjects(rng, shapes, colours, relation)),
        relation,
        background,
        second if style == "split" or (style in TWO_COLOURED and rng.random() < 0.5) else None,
        style,
        rng.choice(PANS) if style in ("striped", "checkered", "dotted") and rng.random() < 0.3 else None,
        rng.random(),
    )  # fmt: skip


def with_another_outline(scene: Scene, rng: random.Random) -> Scene:
    """The same scene, but its first shape is another one."""
    subject, *rest = scene.subjects
    others = [shape for shape in SHAPES if shape != subject.shape]
    if subject.motion == "spinning":
        others = [shape for shape in others if shape not in ROUND]
    return replace(scene, subjects=(replace(subject, shape=rng.choice(others)), *rest))


def with_another_motion(scene: Scene, rng: random.Random) -> Scene:
    """The same scene, but its first shape moves in another way."""
    subject, *rest = scene.subjects
    while True:
        motion = _motion(rng, subject.shape)
        if motion != subject.motion:
            return replace(scene, subjects=(replace(subject, motion=motion), *rest))


def held_out(number: int, subjects: int = 1) -> tuple[str, "Named", Scene]:
    """Prompt, what it names, and scene number `number` of those that training never saw."""
    rng = random.Random(f"held-out-{number}")
    scene = random_scene(rng, held_out=True, subjects=subjects)
    return *caption(scene, rng), scene


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """One in eight of all combinations."""
    names = sorted(COLOURS)
    number = 5 * SHAPES.index(shape) + 3 * names.index(colour) + names.index(background)
    return number % 8 == 0


def _subjects(
    rng: random.Random, shapes: list[str], colours: list[str], relation: str
) -> Iterator[Subject]:
    motions = [_motion(rng, shape) for shape in shapes]
    for number, (shape, motion) in enumerate(zip(shapes, motions, strict=True)):
        size = rng.choice(sorted(SIZES)) if len(shapes) == 1 else "small"
        if relation and relation != "and":  # the one behind is the large one
            size = ("small", "large")[number == (relation == "in front of")]
        place = _apart(rng, number, motions) if relation == "and" else _place(rng, motion, relation)
        yield Subject(shape, size, colours[number], motion, rng.choice(HASTES), place)


def _motion(rng: random.Random, shape: str) -> str:
    while True:
        motion = rng.choice((*MOTIONS, "growing", "shrinking"))
        if motion != "spinning" or shape not in ROUND:
            return motion


def _place(rng: random.Random, motion: str, relation: str) -> tuple[float, float]:
    """The middle of the path: near the frame's middle along a motion."""
    near, far = (0.47, 0.53), (0.34, 0.66)
    if relation or motion in ("orbiting", "bouncing"):
        far = (0.45, 0.55)
    horizontal, vertical = DIRECTIONS.get(motion, (0.0, 0.0))
    return rng.uniform(*(near if horizontal else far)), rng.uniform(*(near if vertical else far))


def _apart(rng: random.Random, number: int, motions: list[str]) -> tuple[float, float]:
    """Two that do not meet: beside each other, or one above the other where one moves sideways."""
    side, middle = rng.uniform(0.26, 0.3) + 0.44 * number, rng.uniform(0.46, 0.54)
    stacked = any(DIRECTIONS.get(motion, (0.0, 0.0))[0] for motion in motions)
    return (middle, side) if stacked else (side, middle)


# --- words ----------------------------------------------------------------------------------------------------------


Named = dict[str, str | None]


def caption(scene: Scene, rng: random.Random) -> tuple[str, Named]:
    """One of many wordings of a scene, and which attributes it names (the others map to None)."""
    named: Named = {
        "background": scene.background,
        "second": scene.second,
        "style": scene.style if scene.second or _says(rng, 0.3 if scene.style == "plain" else 0.75) else None,
        "pan": scene.pan,
        "relation": scene.relation or None,
    }  # fmt: skip
    phrases = []
    for number, subject in enumerate(scene.subjects):
        words, said = _subject_words(subject, rng)
        phrases.append(words)
        named |= {f"{key}{number}": value for key, value in said.items()}
    place = rng.choice(["over", "on", "in front of"] if not scene.relation else ["over", "on"])
    colours = f"{scene.background} and {scene.second}" if scene.second else scene.background
    ground = " ".join(filter(None, [named["style"], colours, "background"]))
    pan = ""
    if scene.pan:
        pan = rng.choice([f" camera panning {scene.pan}", f" while the camera pans {scene.pan}"])
    subjects = f" {scene.relation} ".join(phrases)
    return f"{subjects} {place} a {ground}{pan}", named


def _says(rng: random.Random, chance: float) -> bool:
    return rng.random() < chance


def _subject_words(subject: Subject, rng: random.Random) -> tuple[str, Named]:
    haste = None if subject.motion in HASTELESS or _says(rng, 0.4) else subject.haste
    size = subject.size if _says(rng, 0.7) else None
    motion = subject.motion
    if motion in DIRECTIONS:
        where = motion.replace(" ", rng.choice([" ", " and "]))
        motion = f"{rng.choice(['moving', 'moving', 'going', 'moves'])} {where}"
    thing = " ".join(filter(None, [size, subject.colour, subject.shape]))
    done = " ".join(filter(None, [motion, haste]))
    said: Named = {
        "shape": subject.shape, "size": size, "colour": subject.colour,
        "motion": subject.motion, "haste": haste,
    }  # fmt: skip
    return f"{rng.choice(['a ', 'the ', 'a ', ''])}{thing} {done}", said


def attributes() -> dict[str, tuple[str, ...]]:
    """Everything that a caption can name, with its values."""
    colours = tuple(COLOURS)
    each = {
        "shape": SHAPES, "size": tuple(SIZES), "colour": colours, "motion": MOTIONS, "haste": HASTES,
    }  # fmt: skip
    return {
        "background": colours, "second": colours, "style": STYLES, "pan": PANS, "relation": RELATIONS,
        **{f"{key}{number}": values for number in range(2) for key, values in each.items()},
    }  # fmt: skip


def words() -> list[str]:
    """Every word that a caption can hold."""
    fixed = "a the over on in front of behind and moving going moves background while camera pans panning"
    listed = [*SHAPES, *SIZES, *COLOURS, *STYLES, *MOTIONS, *HASTES, *PANS]
    return sorted({*fixed.split(), *(word for text in listed for word in text.split())})
