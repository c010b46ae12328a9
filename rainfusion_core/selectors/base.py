"""The contract of a method: how it orders the tokens, and how it chooses key blocks for query blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from rainfusion_core.blocks import KeptBlocks
from rainfusion_core.config import AUTO, SparseConfig
from rainfusion_core.errors import ConfigError, UnknownName, UnsupportedLayout
from rainfusion_core.layout import TokenLayout
from rainfusion_core.order import TokenOrder, order_for

OWN = "own"  # the order of a method that makes its orders itself
Option = bool | int | float | str


@dataclass
class Memory:
    """Where a call stands in the run, and what its method carries from step to step.

    There is one for every layer, guidance branch and shape of a run, so a method may keep in
    `found` whatever it likes, under names of its own.

    Attributes:
        step: denoising step, from 0.
        steps: of the run; 0 while unknown.
        layer: self-attention layer of its transformer, from 0.
    """

    step: int = 0
    steps: int = 0
    layer: int = 0
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One attention call, as a method sees it.

    Attributes:
        config: completed by `Method.complete`: nothing is left to the method in it. A sink that is
            "auto" still depends on the layout.
        scale: factor on the logits.
        key_lengths: (batch,) int; keys from this place of the order on are padding, and must
            never be chosen. None: there is no padding.
    """

    layout: TokenLayout
    config: SparseConfig
    scale: float
    key_lengths: Tensor | None = None
    memory: Memory = field(default_factory=Memory)

    def option(self, name: str) -> Any:
        """The value of one of the method's options."""
        return self.config.options[name]


Arrange = Callable[[Tensor, Tensor, Call], TokenOrder]
Select = Callable[[Tensor, Tensor, TokenOrder, Call], KeptBlocks]
Scores = Callable[[Tensor, Tensor, TokenOrder, Call], Tensor]
ScoresOfMeans = Callable[[Tensor, Tensor, Call], Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method. What the user leaves open, it sets as its source does.

    Attributes:
        select: (q, k, order, call) -> kept blocks; q is (batch, heads, tokens, head_dim) and k
            (batch, key_heads, tokens, head_dim), both already in `order`.
        scores: (q, k, order, call) -> (batch, heads, query_blocks, key_blocks) float32, the
            logarithm of the softmax mass that the method predicts for each pair, up to a constant
            in each row. None for methods that score no pairs.
        scores_of_means: (q_means, k_means, call) -> `scores`, from the means of the blocks, for
            methods that keep the best scores and, with their options as they are, need no more of
            q and k: the means are taken while the tokens are put in order, or without ever moving
            them. None for others.
        arrange: (q, k, call) -> order, with q and k in the model's order. None: an order by name.
        order: name in `ORDERS`, or `OWN` with `arrange`.
        sink: whether the source pins the first frame; `sink.first_frame` says when it is done.
        static: the kept blocks depend on layout and settings alone.
        takes_mass: whether a mass target makes sense to it.
        options: names of its options and their values where the user sets none.
        check: raises a ConfigError for values of options that it does not take; given a completed
            configuration, before a model is loaded.
    """

    select: Select
    scores: Scores | None = None
    scores_of_means: ScoresOfMeans | None = None
    arrange: Arrange | None = None
    order: str = "compact"
    sink: bool = False
    static: bool = False
    takes_mass: bool = True
    options: Mapping[str, Option] = field(default_factory=dict)
    check: Callable[[SparseConfig], None] | None = None

    def complete(self, config: SparseConfig) -> SparseConfig:
        """`config` with the order, the sink and the options that the user left to the method.

        Raises:
            ConfigError: the method does not take such an order, mass target or option value.
            UnknownName: it has no such option.
        """
        given = {name: self._as_word(name, value) for name, value in config.options.items()}
        config = replace(config, options=given)
        self._check(config)
        complete = replace(
            config,
            order=self.order if config.order == AUTO else config.order,
            sink=config.sink if self.sink or config.sink != AUTO else False,
            options={**self.options, **config.options},
        )
        if self.check is not None:
            self.check(complete)
        return complete

    def by_means(self, config: SparseConfig) -> bool:
        """Whether `scores_of_means` says what `select` does, under a completed configuration."""
        return self.scores_of_means is not None and config.options == self.options

    def _as_word(self, name: str, value: Option) -> Option:
        """A number is a word too where the method reads it itself: 0.2 is a list of one share."""
        default = self.options.get(name, AUTO)
        wants_word = isinstance(default, str) and default != AUTO
        return str(value) if wants_word and type(value) in (int, float) else value

    def ordered(self, q: Tensor, k: Tensor, call: Call) -> TokenOrder:
        """The order of this call, on the device of `q`.

        Raises:
            UnsupportedLayout: q, k and the layout do not fit each other.
        """
        _check_shapes(q, k, call.layout)
        if self.arrange is not None:
            _check_heads(q, k, call.config.method)
            return self.arrange(q, k, call)
        return order_for(call.layout, call.config).on(q.device)

    def _check(self, config: SparseConfig) -> None:
        if config.order not in (AUTO, self.order) and OWN in (config.order, self.order):
            own = self.order == OWN
            raise ConfigError(
                f"method {config.method} {'orders' if own else 'does not order'} the tokens itself, "
                f"order is {config.order!r}",
                hint="leave the order out" if own else f"its own choice is {self.order!r}",
            )
        if config.mass is not None and (self.static or not self.takes_mass):
            raise ConfigError(
                f"method {config.method} predicts no mass, so it takes no mass target",
                hint="set the sparsity instead",
            )
        for name, value in config.options.items():
            if name not in self.options:
                raise UnknownName(f"option of method {config.method}", name, self.options)
            _check_option(name, value, self.options[name])


def _check_shapes(q: Tensor, k: Tensor, layout: TokenLayout) -> None:
    if q.shape[-2] != layout.tokens or k.shape[-2] != layout.tokens:
        raise UnsupportedLayout(
            f"the layout has {layout.tokens} tokens, got {q.shape[-2]} queries "
            f"and {k.shape[-2]} keys",
            hint="run this attention dense",
        )
    if q.shape[1] % k.shape[1]:
        raise UnsupportedLayout(
            f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads",
            hint="run this attention dense",
        )


def _check_heads(q: Tensor, k: Tensor, method: str) -> None:
    if q.shape[1] != k.shape[1]:
        raise UnsupportedLayout(
            f"method {method} orders every head by itself, but {q.shape[1]} query heads share "
            f"{k.shape[1]} key heads",
            hint="run this attention dense",
        )


def _check_option(name: str, value: Option, default: Option) -> None:
    """Refuse a value that is not of the default's type; a whole number is a float as well.

    Beside "auto" the method itself knows what is right.
    """
    if default == AUTO:
        return
    kind = type(default)
    fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not fits and not (kind is float and type(value) is int):
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
        raise ConfigError(
            f"method option {name} must be {names[kind]}, got {value!r}",
            hint=f"where it is not given it is {default!r}",
        )
