"""The tables of a preset. docs/presets.md explains every key."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, RainfusionError
from rf_cli.presets.video import AtLeastOne, Table, Video

_RF = Path(__file__).parent.parent
_PACKAGED = _RF / "_presets"  # in a wheel (pyproject.toml, force-include)
FOLDER = _PACKAGED if _PACKAGED.is_dir() else _RF.parent / "presets"

Task = Literal[
    "text-to-video",
    "image-to-video",
    "first-last-frame",
    "video-to-video",
    "text-to-image",
    "edit",
]
TASKS: tuple[str, ...] = get_args(Task)
Dtype = Literal["float32", "bfloat16", "float16"]
Size = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]


class Model(Table):
    """Where the weights are, and how they are loaded.

    Attributes:
        location: a repository on the hub, or a folder.
        revision: a commit of the repository; None follows its main branch.
        variant: of the weight files, as in "bf16".
        gated: the hub gives the weights out only after their licence is accepted there.
        requires: packages that the pipeline needs and rf does not bring.
        transformers: task -> folder of its transformer, where one pipeline holds several.
        vae_tiling: decode in tiles from the start, where whole frames take too much memory.
        trained_grid: frames, height and width in tokens that the transformer was trained on; positions
            of larger grids are interpolated.
    """

    location: str
    revision: str | None = None
    variant: str | None = None
    dtype: Dtype
    component_dtypes: dict[str, Dtype] = Field(default_factory=dict)
    gated: bool = False
    requires: list[str] = Field(default_factory=list)
    transformers: dict[Task, str] = Field(default_factory=dict)
    vae_tiling: bool = False
    trained_grid: tuple[AtLeastOne, AtLeastOne, AtLeastOne] | None = None


class Component(Table):
    """A class of diffusers or transformers, and what differs from its defaults."""

    class_name: str
    config: dict[str, Any] = Field(default_factory=dict)


class Transformer(Component):
    """The transformer without its weights, for `rf profile`.

    Attributes:
        count: how many the pipeline has, alike, each for a part of the steps.
        text_tokens: tokens of a prompt as the transformer is given them.
    """

    count: AtLeastOne = 1
    text_tokens: AtLeastOne = 512


class Lora(Table):
    """Weights laid over the transformer, as those of a few-step model."""

    location: str
    file: str | None = None
    revision: str | None = None
    scale: float = 1.0
    component: Literal["transformer", "transformer_2"] = "transformer"


class Sampling(Table):
    """How a clip is denoised.

    Attributes:
        guidance_argument: the pipeline's argument that `guidance` is given as; "guider" sets the
            scale of a pipeline that keeps it in a guider.
        guidance_kind: "classifier-free" runs a second pass a step where guidance is above 1,
            "embedded" gives it to the transformer as an input.
        negative: what a clip must not show, where nothing else is asked for.
        flow_shift: of the scheduler; one for all sizes, or by size: the nearest in area counts.
            None keeps the repository's.
    """

    steps: AtLeastOne
    guidance: Annotated[float, Field(ge=0)]
    guidance_argument: Literal["guidance_scale", "true_cfg_scale", "guider"] = "guidance_scale"
    guidance_kind: Literal["classifier-free", "embedded"] = "classifier-free"
    negative: str = ""
    flow_shift: float | dict[Size, float] | None = None

    def passes(self, guidance: float) -> int:
        """Forward passes a step."""
        return 2 if self.guidance_kind == "classifier-free" and guidance > 1 else 1

    def flow_shift_at(self, width: int, height: int) -> float | None:
        if not isinstance(self.flow_shift, dict):
            return self.flow_shift

        def distance(size: str) -> float:
            columns, rows = map(int, size.split("x"))
            return abs(columns * rows - width * height)

        return self.flow_shift[min(self.flow_shift, key=distance)]


class Sparse(Table):
    """Settings of `SparseConfig` that differ from its defaults."""

    sparsity: float
    dense_steps: float = 0
    dense_last_steps: float = 0
    dense_layers: tuple[int, ...] = ()
    block_size: int = 128
    correction: str = "none"

    @model_validator(mode="after")
    def _accepted(self) -> "Sparse":
        try:
            SparseConfig(**self.model_dump())
        except RainfusionError as error:
            raise ValueError(str(error)) from None
        return self


class Preset(Table):
    """One model with its defaults.

    Attributes:
        parameters: of the transformer, counted; of one where there are two.
        published: the size in the words of its authors, as in "14B"; such names are rounded, or
            leave parts out.
        memory: what the source says about the memory that a render takes.
        tasks: what the model does -> pipeline class of diffusers; the first is the default.
        words: all that the model can read in a prompt; empty: any text.
        call: further arguments of the pipeline.
        sources: key or table -> where its values come from.
    """

    name: str
    description: str
    aliases: list[str] = Field(default_factory=list)
    licence: str
    parameters: AtLeastOne
    published: str = ""
    memory: str = ""
    model: Model
    tasks: dict[Task, str]
    transformer: Transformer
    vae: Component | None = None
    text_encoder: Component | None = None
    scheduler: Component | None = None
    loras: list[Lora] = Field(default_factory=list)
    video: Video
    sampling: Sampling
    sparse: Sparse
    words: list[str] = Field(default_factory=list)
    call: dict[str, Any] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)

    @field_validator("tasks")
    @classmethod
    def _some(cls, value: dict[Task, str]) -> dict[Task, str]:
        if not value:
            raise ValueError(f"must name at least one of {', '.join(TASKS)}")
        return value

    @property
    def location(self) -> str:
        """A folder beside the shipped presets, or what `model.location` says."""
        inside = FOLDER / self.model.location
        return str(inside) if inside.is_dir() else self.model.location

    @property
    def pipeline(self) -> str:
        """Pipeline class of the default task."""
        return next(iter(self.tasks.values()))

    def pipeline_for(self, task: str) -> str:
        """Pipeline class of a task.

        Raises:
            ConfigError: the model does not do it.
        """
        if task not in self.tasks:
            raise ConfigError(
                f"{self.name} does not do {task}; it does {', '.join(self.tasks)}",
                hint="rf models lists what each preset does",
            )
        return self.tasks[task]

    def source(self, key: str) -> str:
        """Where the value of a dotted key comes from; "" where the preset does not say."""
        while key not in self.sources and "." in key:
            key = key.rpartition(".")[0]
        return self.sources.get(key, "")
