"""Sizes and lengths that a model can make, and the tokens that they become."""

import re
from math import prod
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rainfusion_core.errors import ConfigError

AtLeastOne = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of a preset; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Video(Table):
    """Sizes in pixels; a picture is a video of one frame.

    Attributes:
        frame_rule: lengths that the model takes: "4k+1", "4k", or "1" for a picture.
        sizes: the sizes that the source recommends.
        any_size: whether the model also takes other sizes, in steps of `multiple`.
        token: what one token covers: frames, rows and columns of pixels.
    """

    width: AtLeastOne
    height: AtLeastOne
    frames: AtLeastOne = 1
    fps: AtLeastOne = 1
    frame_rule: Annotated[str, Field(pattern=r"^(1|[1-9]\d*k(\+[1-9]\d*)?)$")] = "1"
    max_frames: AtLeastOne | None = None
    sizes: list[Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]]
    any_size: bool = True
    multiple: AtLeastOne
    max_side: AtLeastOne | None = None
    token: tuple[AtLeastOne, AtLeastOne, AtLeastOne]

    @field_validator("sizes")
    @classmethod
    def _some(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("must list at least one size, as in ['832x480']")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Video":
        missing = {"fps", "frame_rule"} - self.model_fields_set
        if self.frames > 1 and missing:
            raise ValueError(f"{sorted(missing)[0]} is missing: a video of many frames needs it")
        for size in (f"{self.width}x{self.height}", *self.sizes):
            width, height = map(int, size.split("x"))
            try:
                self.check("it", width, height, self.frames)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix("--")) from None
        return self

    @property
    def is_picture(self) -> bool:
        return self.frame_rule == "1"

    def grid(self, width: int, height: int, frames: int) -> tuple[int, int, int]:
        """Tokens of a clip as (frames, rows, columns)."""
        time, rows, columns = self.token
        return -(-frames // time), height // rows, width // columns

    def tokens(self, width: int, height: int, frames: int) -> int:
        """Video tokens of a clip."""
        return prod(self.grid(width, height, frames))

    def check(self, model: str, width: int, height: int, frames: int) -> None:
        """Refuse a size or length that the model cannot take, and name the nearest ones."""
        self._check_size(model, width, height)
        self._check_frames(model, frames)

    def _check_size(self, model: str, width: int, height: int) -> None:
        if not self.any_size:
            if f"{width}x{height}" not in self.sizes:
                raise ConfigError(
                    f"--size {width}x{height} does not fit {model}: "
                    f"it takes {' and '.join(self.sizes)} alone"
                )
            return
        limit = self.max_side or max(width, height)
        if width % self.multiple or height % self.multiple or not 0 < max(width, height) <= limit:
            near = sorted(
                {(w, h) for w in self._near(width, limit) for h in self._near(height, limit)},
                key=lambda size: abs(size[0] - width) + abs(size[1] - height),
            )[:2]
            rule = f"multiples of {self.multiple}"
            rule += f" up to {self.max_side}" if self.max_side else ""
            raise ConfigError(
                f"--size {width}x{height} does not fit {model}: width and height must be {rule}",
                hint="the nearest are " + " and ".join(f"{w}x{h}" for w, h in near),
            )

    def _near(self, side: int, limit: int) -> set[int]:
        below = side // self.multiple * self.multiple
        limit = limit // self.multiple * self.multiple
        return {
            min(max(x, self.multiple), max(limit, self.multiple))
            for x in (below, below + self.multiple)
        }

    def _check_frames(self, model: str, frames: int) -> None:
        if self.is_picture:
            if frames != 1:
                raise ConfigError(
                    f"--frames {frames} does not fit {model}: it makes pictures",
                    hint="leave --frames out",
                )
            return
        step, offset = self._step
        most = self.max_frames or max(frames, step + offset)
        if frames < max(1, offset) or (frames - offset) % step or frames > most:
            rule = f"{offset} more than a multiple of {step}" if offset else f"a multiple of {step}"
            rule += f", {self.max_frames} at most" if self.max_frames else ""
            least = offset or step
            below = max(least, min(most, (frames - offset) // step * step + offset))
            near = [x for x in (below, below + step) if not self.max_frames or x <= most]
            raise ConfigError(
                f"--frames {frames} does not fit {model}: frames must be {rule}",
                hint="the nearest are " + " and ".join(map(str, near))
                if len(near) > 1
                else f"the nearest is {near[0]}",
            )

    @property
    def _step(self) -> tuple[int, int]:
        """k's factor and what is added, of `frame_rule`."""
        step, offset = re.fullmatch(r"(\d+)k(?:\+(\d+))?", self.frame_rule).groups()  # type: ignore[union-attr]
        return int(step), int(offset or 0)
