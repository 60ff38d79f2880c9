"""Frames: prices as a strategy wants to see them, and weights as it likes to answer.

A strategy says what it wants by how it annotates the prices it takes, or by an attribute `frame`:

    numpy    (bars, assets) float64, read-only; also for a strategy that says nothing
    pandas   a DataFrame, one column an asset, its index the times: a DatetimeIndex in UTC
    polars   a DataFrame, its first column `time`, Datetime("us", "UTC"); then one an asset

It answers with an array of the shape of the prices, or with a frame of the kind it was given, the
columns in any order; of one asset also with one row of weights or a series. Every bar is answered.

Whatever is handed out is a copy: it holds no row that was cut off, and nobody else sees it change.
Frames are made and read through narwhals, which is imported when the first one is met.
"""

import ast
import functools
import inspect
import linecache
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import resolve_name
from reprlib import repr  # A frame's own would fill the screen.
from types import FunctionType, MethodType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Literal, TypeAlias, Union
from typing import get_args as arguments_of
from typing import get_origin as origin_of

import numpy as np
from numpy.typing import ArrayLike

from qmtl.core.words import counted
from qmtl.sdk import tables
from qmtl.sdk.prices import FloatArray, Prices, TimeArray, stamp

if TYPE_CHECKING:
    import narwhals as nw

Kind: TypeAlias = Literal["numpy", "pandas", "polars"]
KINDS: tuple[Kind, ...] = ("numpy", "pandas", "polars")
CLASSES: Mapping[tuple[str, str], Kind] = {
    ("numpy", "ndarray"): "numpy",
    ("pandas", "DataFrame"): "pandas",
    ("polars", "DataFrame"): "polars",
}
TIME = "time"
OPTIONS = (
    "annotate the prices as np.ndarray, pd.DataFrame or pl.DataFrame, or give the strategy the"
    " attribute frame = 'numpy', 'pandas' or 'polars'"
)
FILL_WARM_UP: Mapping[str, str] = {
    "pandas": "keep every bar; fill the warm-up with 0: weights.fillna(0)",
    "polars": "keep every bar; fill the warm-up with 0: weights.fill_null(0).fill_nan(0)",
}


class FrameError(ValueError):
    """A strategy cannot be given the frame it asks for, or its answer cannot be read."""


# What a strategy wants ----------------------------------------------------------------------------


def wanted(strategy: object, weights: Callable[..., object]) -> Kind:
    """The kind of frame that `strategy` says it takes; `weights` is its function of prices.

    An attribute `frame` wins over the annotation of the first parameter. Raises FrameError for
    another word or another annotation, and for an annotation that cannot be read.
    """
    for thing in (*_layers(strategy), *_layers(weights)):
        declared = getattr(thing, "frame", None)
        if declared is not None:
            return _declared(declared)
    try:
        parameters = inspect.signature(weights).parameters.values()
    except (TypeError, ValueError):
        return "numpy"  # Made in C, it has nothing to say.
    first = next(iter(parameters), None)
    if first is None or first.annotation is first.empty:
        return "numpy"
    return _meant(first.annotation, weights)


def _declared(frame: object) -> Kind:
    for kind in KINDS if isinstance(frame, str) else ():
        if frame == kind:
            return kind
    raise FrameError(f"its attribute frame is {repr(frame)}; it is one of {', '.join(KINDS)}")


def _layers(thing: object) -> Iterator[object]:
    """A partial, what it binds, a bound method, its object."""
    yield thing
    if isinstance(thing, functools.partial):
        yield from _layers(thing.func)
    elif isinstance(thing, MethodType):
        yield from _layers(thing.__self__)


def _meant(annotation: object, weights: Callable[..., object]) -> Kind:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return _meant(_evaluated(annotation, weights), weights)
    if annotation in (Any, object, ArrayLike):
        return "numpy"
    origin = origin_of(annotation)
    if origin is Annotated:
        return _meant(arguments_of(annotation)[0], weights)
    if origin in (Union, UnionType):
        parts = [part for part in arguments_of(annotation) if part is not type(None)]
        kinds = {_meant(part, weights) for part in parts}
        if len(kinds) == 1:
            return kinds.pop()
        raise FrameError(f"its prices may be any of {annotation}; {OPTIONS}")
    named = annotation if origin is None else origin
    for each in named.__mro__ if isinstance(named, type) else ():
        kind = CLASSES.get((each.__module__.partition(".")[0], each.__name__))
        if kind is not None:
            return kind
    raise FrameError(f"prices are no {_shown(annotation)}; {OPTIONS}")


def _shown(annotation: object) -> str:
    if isinstance(annotation, type) and origin_of(annotation) is None:
        return f"{annotation.__module__}.{annotation.__qualname__}".removeprefix("builtins.")
    return str(annotation)


def _evaluated(annotation: str, weights: Callable[..., object]) -> object:
    """What the text of an annotation stands for where it was written."""
    function = _innermost(weights)
    if function is None:
        raise FrameError(f"the annotation {annotation!r} of its prices is nobody's; {OPTIONS}")
    names = ChainMap(function.__globals__, _Imports(function))
    try:
        return eval(annotation, {}, names)
    except (NameError, AttributeError, TypeError, SyntaxError, ImportError) as error:
        raise FrameError(
            f"the annotation {annotation!r} of its prices cannot be read ({error}); {OPTIONS}"
        ) from error


def _innermost(weights: object) -> FunctionType | None:
    """The function whose first parameter it is, as `inspect.signature` finds it."""
    if isinstance(weights, functools.partial):
        return _innermost(weights.func)
    if isinstance(weights, MethodType):
        return _innermost(weights.__func__)
    if isinstance(weights, FunctionType):
        function = inspect.unwrap(weights)
        return function if isinstance(function, FunctionType) else None
    if callable(weights) and isinstance(weights.__call__, MethodType):
        return _innermost(weights.__call__)
    return None


class _Imports(dict[str, Any]):
    """What the file of a function imports, wherever it does, `if TYPE_CHECKING` included."""

    def __init__(self, function: FunctionType) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, name: str) -> object:
        around = self.function.__globals__
        lines = linecache.getlines(self.function.__code__.co_filename, around)
        module, attribute = _imports("".join(lines))[name]
        imported = import_module(resolve_name(module, str(around.get("__package__") or "")))
        return getattr(imported, attribute) if attribute else imported


@functools.lru_cache(maxsize=8)  # The look-ahead check asks the same some forty times.
def _imports(source: str) -> Mapping[str, tuple[str, str]]:
    """By bound name: the module, with leading dots, and the name in it, if any."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                found[bound] = (alias.name if alias.asname else bound, "")
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    return found


# What it is given ---------------------------------------------------------------------------------


def given(prices: Prices, kind: Kind) -> object:
    """A copy of the prices, as `kind` has it.

    Raises FrameError when the library is not installed, or an asset is called `time`.
    """
    values = np.array(prices.values)
    if kind == "numpy":
        values.flags.writeable = False
        return values
    if TIME in prices.assets:
        raise FrameError(f"an asset is named {TIME}, as the times are; rename it")
    import narwhals as nw

    try:
        times = nw.new_series(TIME, prices.times, nw.Datetime("us"), backend=kind)
    except ImportError as error:
        raise FrameError(f"{kind} is not installed: pip install qmtl[{kind}]") from error
    times = times.dt.replace_time_zone("UTC")
    frame = nw.from_numpy(values, schema=list(prices.assets), backend=kind)
    if kind == "pandas":
        return nw.maybe_set_index(frame, index=times).to_native()
    return frame.select(times, nw.all()).to_native()


# What it answers ----------------------------------------------------------------------------------


def taken(answer: object, kind: Kind, prices: Prices) -> FloatArray:
    """The strategy's answer as (bars, assets) float64, a copy.  NaN is left alone; null is NaN.

    Raises FrameError for what is no table of numbers, or not one of these bars and these assets.
    """
    library = tables.library_of(answer)
    if answer is None:
        raise FrameError("weights are None: does it end with `return weights`?")
    if library is None:
        if isinstance(answer, np.ndarray) and np.iscomplexobj(answer):
            raise FrameError("weights are complex numbers")  # numpy would drop half of each.
        try:
            weights = np.array(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise FrameError("weights are no table of numbers") from error
    elif library == kind:
        try:
            weights = _read(answer, kind, prices)
        except tables.TableError as error:
            raise FrameError(f"weights: {error}") from error
    else:
        raise FrameError(
            f"weights are {tables.described(answer)}, and its prices {kind}; a strategy answers in"
            f" what it is given. To be given another, {OPTIONS}"
        )
    if weights.shape == (prices.bars,) and len(prices.assets) == 1:
        return weights[:, np.newaxis]
    if weights.shape != prices.values.shape:
        raise FrameError(f"weights have shape {weights.shape} for prices of {prices.values.shape}")
    return weights


def _read(answer: Any, kind: Kind, prices: Prices) -> FloatArray:
    import narwhals as nw

    tables.named_once(answer)
    try:
        table = nw.from_native(answer, eager_only=True, allow_series=True)
    except TypeError as error:
        collect = "; collect() it" if type(answer).__name__ == "LazyFrame" else ""
        raise FrameError(f"weights are {tables.described(answer)}{collect}") from error
    if isinstance(table, nw.Series):
        if len(prices.assets) != 1:
            raise FrameError(
                f"weights are {tables.described(answer)}, which is one asset's;"
                f" there are {len(prices.assets)}"
            )
        frame = table.alias(prices.assets[0]).to_frame()
    else:
        frame = table
    times = tables.index_of(answer)
    if times is None and TIME in frame.columns:
        times = frame[TIME]
        frame = frame.drop(TIME)
    _same_bars(times, len(frame), kind, prices)
    _same_assets(frame.columns, kind, prices)
    frame = frame.with_columns(nw.selectors.boolean().cast(nw.Float64))
    return tables.numbers(frame, prices.assets)


def _same_bars(times: "nw.Series[Any] | None", rows: int, kind: Kind, prices: Prices) -> None:
    remedy = FILL_WARM_UP[kind]
    if times is None:
        if rows != prices.bars:
            raise FrameError(f"weights have {rows} rows for {prices.bars} bars; {remedy}")
        return
    if tables.zone_of(times) is None:
        raise FrameError(
            f"weights have {times.dtype} for their times, not those of the prices;"
            " keep the prices' own"
        )
    found: TimeArray = tables.utc(times)
    if np.array_equal(found, prices.times):
        return
    lost = np.setdiff1d(prices.times, found)
    if len(lost):
        bars = counted(len(lost), "bar")
        raise FrameError(f"weights lack {bars}, the first {stamp(lost[0])}; {remedy}")
    added = np.setdiff1d(found, prices.times)
    if len(added):
        raise FrameError(f"weights have a bar that the prices have not, {stamp(added[0])}")
    raise FrameError("weights have the bars in another order, or one twice; keep the prices' own")


def _same_assets(columns: list[str], kind: Kind, prices: Prices) -> None:
    lost = [asset for asset in prices.assets if asset not in columns]
    added = [str(column) for column in columns if column not in prices.assets]
    if not lost and not added:
        return
    faults = [f"lack {', '.join(lost)}"] if lost else []
    faults += [f"have {', '.join(added)}, which no asset is called"] if added else []
    remedy = {
        "pandas": "weights.reindex(columns=prices.columns, fill_value=0)",
        "polars": "select the columns of prices, and those that are never held as pl.lit(0.0)",
    }[kind]
    raise FrameError(f"weights {' and '.join(faults)}; one column an asset: {remedy}")


# What it is, by value -----------------------------------------------------------------------------


def content(frame: Any) -> tuple[object, ...]:
    """What a frame, series or index holds, in plain values and arrays: the same in every process.

    Raises FrameError, naming the column, for values that have no bytes of their own.
    """
    import narwhals as nw

    library = tables.library_of(frame)
    if type(frame).__name__.endswith("Index"):
        frame = frame.to_series()
    try:
        table = nw.from_native(frame, eager_only=True, allow_series=True)
    except TypeError as error:
        raise FrameError(f"{tables.described(frame)} cannot be told by its value") from error
    columns = [table] if isinstance(table, nw.Series) else list(table.iter_columns())
    index = tables.index_of(frame)
    if index is not None:
        columns.append(index)
    return (library, type(frame).__name__, len(columns), *map(_column, columns))


def _column(series: "nw.Series[Any]") -> tuple[object, ...]:
    import narwhals as nw

    zone = tables.zone_of(series)
    match series.dtype:
        case nw.String() | nw.Categorical() | nw.Enum():
            values: object = series.cast(nw.String).to_list()
        case _ if zone is not None:
            values = tables.utc(series)
        case dtype if dtype.is_numeric() or dtype.is_temporal() or isinstance(dtype, nw.Boolean):
            values = series.to_numpy()
        case dtype:
            raise FrameError(f"its column {series.name} of {dtype} cannot be told by its value")
    return (series.name, str(series.dtype), zone, values, series.is_null().to_numpy())
