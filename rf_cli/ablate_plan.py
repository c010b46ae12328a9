"""What an ablation measures: clips, captured calls, and the variants that are asked about each of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError

if TYPE_CHECKING:
    from rainfusion_core.render import Clip
    from rainfusion_core.study.ablation import Variant
    from rf_cli.presets import Preset

REPRESENTATIVES: dict[
    str, dict[str, str | int]
] = {  # by what they are called: options of rainfusion2
    "mean": {},
    **{kind: {"representative": kind} for kind in ("max", "first", "last", "random")},
    "4 means": {"parts": 4},
}
ORDERS = ("compact", "window", "frame", "raster")
IDEAS, SINK, METHODS = "ideas", "sink", "methods"  # the groups of variants
DENSITIES = (0.1, 0.2, 0.3)
# representatives and orders are compared at 80 % sparsity and at 70 %, the sink where it has room
IDEA_DENSITIES, SINK_DENSITIES = (0.2, 0.3), (0.3, 0.4, 0.5)
SINK_RENDERED = 0.4  # the density at which it is also rendered
EQUAL = 0.02  # densities that differ by no more are one
REACHED = 0.1  # a density this far from the asked one is another one
SMALL_BLOCK = 64
BESIDE: dict[str, dict[str, Any]] = {  # variants in the league, by what they are called
    # tuned for other models, the gate lets everything through here
    "sparge, no gate": {"method": "sparge", "options": {"similarity": -1.0}},
    # rows share the density by the mass that they need
    "rainfusion2, by mass": {"method": "rainfusion2", "mass": 0.5},
}


@dataclass(frozen=True)
class Entry:
    """A variant, and by which values of which factors the results will be grouped."""

    group: str
    factors: Mapping[str, Any]
    variant: "Variant"


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        captured: steps whose calls are kept, as shares of all steps.
        layers: how many are kept, spread evenly; None keeps all.
        render_clips: of the clips, how many are also rendered with every method at the density
            nearest to a fifth; None renders all.
        other_render_clips: the same at other densities.
        sink_render_clips: the same with the sink and without.
    """

    prompts: int
    seeds: Sequence[int]
    steps: int
    captured: Sequence[float]
    layers: int | None
    densities: Sequence[float] = DENSITIES
    render_clips: int | None = None
    other_render_clips: int | None = 2
    sink_render_clips: int | None = 8


# an hour on two cores: docs/evidence.md, section 7, adds it up
FULL = Scale(prompts=16, seeds=(0, 1), steps=8, captured=(0.5,), layers=3)
QUICK = Scale(
    prompts=3, seeds=(0,), steps=8, captured=(0.5,), layers=3, densities=(0.2,),
    render_clips=2, sink_render_clips=2,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """`clips` of every size come in the same order, so that they pair up by number.

    The league is asked about the first size alone, the ideas about all.

    Attributes:
        named: for every clip what its prompt names, where a judge knows its words, else None.
    """

    clips: Mapping[str, Sequence["Clip"]]  # by size
    named: Sequence[Mapping[str, str | None] | None]
    layers: Sequence[int]
    steps: Sequence[int]
    entries: Sequence[Entry]
    scale: Scale = field(default=FULL)

    @property
    def first_size(self) -> str:
        return next(iter(self.clips))

    def entries_of(self, size: str) -> list[Entry]:
        """What is asked about the calls of this size."""
        return [e for e in self.entries if e.group != METHODS or size == self.first_size]

    def renders(self) -> list[tuple[int, Entry]]:
        """(number of a clip of the first size, entry): clip after clip, what most clips get first."""
        available = len(self.clips[self.first_size])
        counts = {
            number: min(available, available if count is None else count)
            for number, entry in enumerate(self.entries)
            if (count := self._render_clips(entry)) != 0
        }
        wanted = [(-count, index, n) for n, count in counts.items() for index in range(count)]
        return [(index, self.entries[number]) for _, index, number in sorted(wanted)]

    def _render_clips(self, entry: Entry) -> int | None:
        """How many clips are rendered with a variant; None: all there are."""
        density = entry.factors["density"]
        if entry.group == METHODS and entry.variant.config.mass is None:
            # a mass target cannot be moved to a density from within a render
            near = density == near_a_fifth(self.scale.densities)
            return self.scale.render_clips if near else self.scale.other_render_clips
        at = entry.group == SINK and density == SINK_RENDERED
        return self.scale.sink_render_clips if at else 0


def near_a_fifth(densities: Iterable[float]) -> float:
    """The density nearest to 20 %, which every scale measures."""
    return min(densities, key=lambda density: abs(density - 0.2))


def captured_steps(scale: Scale, steps: int) -> list[int]:
    return sorted({min(steps - 1, int(share * steps)) for share in scale.captured})


def captured_layers(scale: Scale, layers: int) -> list[int]:
    return list(range(layers)) if scale.layers is None else spread(scale.layers, layers)


def spread(count: int, layers: int) -> list[int]:
    """Layer numbers, evenly spread, the first and the last among them."""
    if count >= layers:
        return list(range(layers))
    last = max(1, count - 1)
    return sorted({round(number * (layers - 1) / last) for number in range(count)})


def default_sizes(preset: "Preset") -> list[str]:
    """The preset's own size; for shapes also one that windows of 8 do not divide."""
    video = preset.video
    sizes = [f"{video.width}x{video.height}"]
    return [*sizes, "112x112"] if preset.name == "shapes" else sizes


def prompts_and_names(
    preset: "Preset", prompts: Sequence[str] | None, count: int
) -> list[tuple[str, dict[str, str | None] | None]]:
    """Prompts, and what each names where a judge knows its words."""
    if prompts is not None:
        return [(prompt, None) for prompt in prompts]
    if preset.name != "shapes":
        raise ConfigError(
            f"there are no prompts for {preset.name}", hint="give them with --prompts FILE"
        )
    from rainfusion_core.shapes import world

    return [world.held_out(number)[:2] for number in range(count)]


def entries(scale: Scale, base: SparseConfig, methods: Sequence[str] | None) -> list[Entry]:
    """All variants. Nothing is pinned but where the sink is what is asked about.

    Args:
        methods: of the league; None: all there are.
    """
    return [*_methods(base, methods, scale.densities), *_sink(base), *_ideas(base)]


def _config(base: SparseConfig, **changes: Any) -> SparseConfig:
    from dataclasses import replace

    return replace(base, **{"sink": False, "budget": "total", **changes})


def _entry(
    group: str, config: SparseConfig, density: float, *, output: bool = True, **factors: Any
) -> Entry:
    from rainfusion_core.study.ablation import Variant

    factors = {**factors, "density": density}
    name = ", ".join(f"{key} {value}" for key, value in factors.items())
    return Entry(group, factors, Variant(f"{group}: {name}", config, density, output))


def _ideas(base: SparseConfig) -> Iterator[Entry]:
    """Representatives and orders, each with each; in blocks of 64 the representatives alone."""
    sizes = [(base.block_size, order) for order in ORDERS] + [(SMALL_BLOCK, "compact")]
    for (size, order), one, density in product(sizes, REPRESENTATIVES, IDEA_DENSITIES):
        # only the recall where both differ from what the core does, and at one density
        both = order != "compact" and one != "mean"
        if both and density != IDEA_DENSITIES[0]:
            continue
        config = _config(base, order=order, block_size=size, options=REPRESENTATIVES[one])
        factors = {"representative": one, "order": order, "block": size}
        yield _entry(IDEAS, config, density, output=not both, **factors)


def _sink(base: SparseConfig) -> Iterator[Entry]:
    for sink, density in product((True, False), SINK_DENSITIES):
        yield _entry(SINK, _config(base, sink=sink), density, sink="on" if sink else "off")


def _methods(
    base: SparseConfig, methods: Sequence[str] | None, densities: Sequence[float]
) -> Iterator[Entry]:
    """Every method as its source has it, and the variants of `BESIDE`."""
    from rainfusion_core.selectors import SELECTORS

    league: dict[str, dict[str, Any]] = {name: {"method": name} for name in methods or SELECTORS}
    league |= {name: each for name, each in BESIDE.items() if each["method"] in league}
    for (name, settings), density in product(league.items(), densities):
        yield _entry(METHODS, _config(base, **settings), density, method=name)
