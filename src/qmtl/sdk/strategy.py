"""What a strategy is, and what makes it this strategy and no other.

A strategy turns prices into weights: `weights(prices) -> weights`, both of bars by assets, as numpy
arrays or as pandas or polars frames (`frames.py`). It is causal: row i uses prices up to and
including bar i. It answers for any number of bars; where it knows too little it holds nothing
(zeros). It is an object with that method, or a plain function of that shape.

Its fingerprint digests four things: code, parameters, data, engine settings. Evidence binds to the
fingerprint, so what changes the weights must change it, and what does not (another process, another
machine, another order of attributes) must not:

* Code is the source text of the strategy and of every function, class and constant it reaches by
  name within its own top-level package, however indirectly. Other packages count by the names that
  the source mentions, not by their versions. Where there is no source (a shell, `exec`) and for
  lambdas (whose source line may hold several) the bytecode counts, which is stable within one minor
  version of Python only.
* Parameters are the fields of an object, or what a function closes over and its defaults. They are
  encoded by value and never by address: what cannot be is refused, not guessed.

A comment changes the fingerprint too. That errs on the safe side: evidence starts anew.
"""

import copyreg
import functools
import hashlib
import inspect
import pickle
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qmtl.sdk import frames
from qmtl.sdk.prices import FloatArray, Prices
from qmtl.sdk.tables import library_of

FORMAT = "qmtl-fingerprint-2"
# Parameters nest a few levels. Beyond this they hold each other in a circle.
DEPTH_MAX = 32
# Their repr is their value.
PLAIN = (type(None), bool, int, str, bytes, type(Ellipsis), complex, range, date, time, timedelta)
PLAIN_LIBRARY = (Decimal, Fraction, PurePath)
# Long doubles have as many bits as the machine likes, and padding that may hold anything.
LONG = "gG"
# Globals that count by value, and so do frames. A list or a dict may be a cache, and change between
# two calls: those count by name and type only.
CONSTANT = (*PLAIN, *PLAIN_LIBRARY, float, Enum, np.ndarray, np.generic)


class StrategyError(ValueError):
    """The strategy is not usable; the message says what it did, and on which date."""


@runtime_checkable
class HasWeights(Protocol):
    """An object that is a strategy."""

    def weights(self, prices: Any, /) -> Any:
        """Fractions of equity, one a bar and asset, from prices; negative is short.

        Any: an array, or a pandas or polars DataFrame, as the strategy annotates it.
        """
        ...


Strategy: TypeAlias = HasWeights | Callable[[Any], Any]


def weights_of(strategy: Strategy, prices: Prices) -> FloatArray:
    """The strategy's weights (bars, assets), fractions of equity.

    The strategy gets a copy, as the array or the frame that it asks for: it can neither change the
    prices of others nor reach rows that were cut off. Raises StrategyError when it asks for another
    thing, or answers with another shape, other bars or assets, or with what is no table of numbers;
    whatever the strategy raises is passed on. NaN is not looked for here.
    """
    weights, kind = _asked(strategy)
    try:
        given = frames.given(prices, kind)
    except frames.FrameError as error:
        raise StrategyError(f"{called(strategy)}: {error}") from error
    _callable_with_prices(strategy, weights)
    try:
        answer = weights(given)
    except AttributeError as error:
        if isinstance(error.obj, np.ndarray):
            error.add_note(f"Its prices are a numpy array. For a frame, {frames.OPTIONS}")
        raise
    try:
        return frames.taken(answer, kind, prices)
    except frames.FrameError as error:
        raise StrategyError(f"{called(strategy)}: {error}") from error


def name_of(strategy: object, otherwise: str | None = None) -> str:
    """The strategy's `name` where it has one, else the name of its function or class.

    A lambda has none: it is called `otherwise`. Without that it raises StrategyError, since two of
    them could not be told apart.
    """
    name = getattr(strategy, "name", None)
    if isinstance(name, str) and name:
        return name
    if isinstance(strategy, functools.partial):
        return name_of(strategy.func, otherwise)
    if isinstance(strategy, MethodType):
        return name_of(strategy.__self__, otherwise)
    named = strategy if isinstance(strategy, FunctionType | type) else type(strategy)
    if named.__name__ != "<lambda>":
        return named.__name__
    if otherwise is None:
        raise StrategyError("a lambda has no name; give strategy_id, or write a def")
    return otherwise


def called(strategy: object) -> str:
    """What messages call it."""
    return name_of(strategy, "the lambda")


def parameters_of(strategy: object) -> dict[str, object]:
    """What the strategy's answer depends on beside its code and the prices, by name, sorted.

    Of an object its fields and attributes; of a function what it closes over, its defaults and its
    attributes; of a partial or a bound method these and what is bound.
    """
    if isinstance(strategy, functools.partial):
        bound = {f"args[{at}]": value for at, value in enumerate(strategy.args)}
        found = {**parameters_of(strategy.func), **bound, **strategy.keywords}
    elif isinstance(strategy, MethodType):
        found = parameters_of(strategy.__self__)
    elif isinstance(strategy, FunctionType):
        found = {**_defaults(strategy), **_closure(strategy), **vars(strategy)}
    else:
        found = _attributes(strategy)
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What makes a strategy this one: a digest (`sha256:...`) of each of its four parts.

    Two that agree in all four are the same strategy; where they differ says what was changed.
    """

    code: str
    parameters: str
    data: str
    engine: str

    @property
    def digest(self) -> str:
        """`sha256:` of the four: the strategy's identity."""
        return _digest(FORMAT, self.code, self.parameters, self.data, self.engine)

    @property
    def parts(self) -> dict[str, str]:
        """By name, as a submission carries them."""
        return {name: getattr(self, name) for name in PARTS}


PARTS = ("code", "parameters", "data", "engine")


def fingerprint(strategy: Strategy, data_digest: str, engine: object) -> Fingerprint:
    """Of the strategy's code and parameters, the data's digest and the engine's settings.

    data_digest  of the prices it was tested on (`Prices.digest()`)
    engine       what turned weights into returns; its type's name and its fields count

    The same in every process. Ask before the strategy first runs: what it keeps of a run is an
    attribute like any other. Raises StrategyError, naming it, for a parameter that cannot be
    encoded by value (a lock, an open file) or that holds itself in a circle, and for a strategy
    that asks for what it cannot be given.
    """
    _, kind = _asked(strategy)  # An annotation may name what is defined elsewhere.
    body = _body(strategy)
    home = _package(body)
    parameters = {}
    for name, value in parameters_of(strategy).items():
        try:
            parameters[name] = _encode(value, home)
        except StrategyError as error:
            raise StrategyError(f"{called(strategy)}: parameter {name}: {error}") from error
    return Fingerprint(
        code=_digest(_code(body, home), _method(strategy), kind),
        parameters=_digest(parameters),
        data=data_digest,
        engine=_digest(type(engine).__qualname__, _encode(_attributes(engine), home)),
    )


def code_of(made: object) -> str:
    """The digest of the code of a strategy, or of a class or function that makes some.

    The same wherever the same source is imported.  Raises StrategyError for a constant that its
    code uses and that cannot be encoded by value.
    """
    body = _body(made)
    return _digest(_code(body, _package(body)))


def _digest(*parts: object) -> str:
    return f"sha256:{hashlib.sha256(_encode(parts, '')).hexdigest()}"


def _asked(strategy: Strategy) -> tuple[Callable[[Any], Any], frames.Kind]:
    """The function of prices that a strategy is, and what it wants to be given."""
    if isinstance(strategy, type):
        raise StrategyError(f"{strategy.__name__} is a class; give an instance of it")
    weights = strategy.weights if isinstance(strategy, HasWeights) else strategy
    if not callable(weights):
        raise StrategyError(f"{type(strategy).__name__} is no strategy: it has no weights(prices)")
    try:
        return weights, frames.wanted(strategy, weights)
    except frames.FrameError as error:
        raise StrategyError(f"{called(strategy)}: {error}") from error


def _callable_with_prices(strategy: Strategy, weights: Callable[[Any], Any]) -> None:
    """Raises StrategyError when it takes no prices, or wants more than those."""
    try:
        signature = inspect.signature(weights)
    except ValueError:  # Of a function that is not written in Python.
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise StrategyError(
            f"{called(strategy)} cannot be called with the prices alone: {error};"
            " write weights(prices), and make parameters fields of a dataclass, or give defaults"
        ) from error


# Parameters ---------------------------------------------------------------------------------------


def _attributes(thing: object) -> dict[str, object]:
    names = set(getattr(thing, "__dict__", ()))
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    names -= {"__dict__", "__weakref__"}
    return {name: getattr(thing, name) for name in sorted(names) if hasattr(thing, name)}


def _defaults(function: FunctionType) -> dict[str, object]:
    arguments = inspect.signature(function, follow_wrapped=False).parameters.values()
    return {each.name: each.default for each in arguments if each.default is not each.empty}


def _closure(function: FunctionType) -> dict[str, object]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # An empty cell: the name is not bound yet, so there is no value.
            continue
    return found


def _encode(value: object, home: str, depth: int = 0) -> bytes:
    """`value` as bytes: tagged and length-prefixed, so that different values never meet.

    Raises StrategyError for what has no bytes of its own.
    """
    if depth > DEPTH_MAX:
        raise StrategyError(f"nested more than {DEPTH_MAX} deep")

    def packed(tag: str, parts: Iterable[object]) -> bytes:
        return _packed(tag, *(_encode(part, home, depth + 1) for part in parts))

    match value:
        case Enum():
            return packed("enum", (type(value).__qualname__, value.name, value.value))
        case np.generic() if type(value.item()) in (bool, int, float) and value.dtype.kind != "m":
            return _encode(value.item(), home, depth + 1)
        case np.ndarray() | np.generic():
            return _encode_array(np.asarray(value))
        case float():
            return _packed("float", value.hex().encode())
        case tuple() | list():
            return packed(type(value).__qualname__, value)
        case set() | frozenset():
            return _packed("set", *sorted(_encode(item, home, depth + 1) for item in value))
        case Mapping():
            return _packed("map", *sorted(packed("item", item) for item in value.items()))
        case FunctionType() if _package(value) != home:
            return _label(value)
        case FunctionType():
            parameters = {**_defaults(value), **_closure(value)}
            parameters.pop(value.__name__, None)  # A function that calls itself holds itself.
            return _packed("function", _code(value, home), packed("of", [parameters]))
        case type():
            return _packed("class", _code(value, home))
        case _ if library_of(value) is not None:
            try:
                return packed("frame", frames.content(value))
            except frames.FrameError as error:
                raise StrategyError(str(error)) from error
        case functools.partial() | MethodType():
            return packed("bound", (_body(value), _method(value), parameters_of(value)))
        case _ if isinstance(value, PLAIN + PLAIN_LIBRARY):
            return _packed(type(value).__qualname__, repr(value).encode())
        case _:
            return packed("object", (type(value), *_reduced(value)))


def _reduced(value: object) -> Iterator[object]:
    """An object's value as pickle would have it: how it is made, of what, what it then holds."""
    special = copyreg.dispatch_table.get(type(value))
    try:
        reduced = special(value) if special else value.__reduce_ex__(4)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise StrategyError(f"a {type(value).__qualname__} cannot be told by its value") from error
    for part in (reduced,) if isinstance(reduced, str) else reduced:
        yield list(part) if isinstance(part, Iterator) else part


def _encode_array(array: NDArray[np.generic]) -> bytes:
    if array.dtype.hasobject or array.dtype.char in LONG:
        raise StrategyError(f"an array of {array.dtype} cannot be told by its bytes")
    little = array.astype(array.dtype.newbyteorder("<"), order="C")
    layout = f"{little.dtype.descr} {little.shape}"
    return _packed("array", layout.encode(), little.tobytes())


def _packed(tag: str, *parts: bytes) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in (tag.encode(), *parts))


# Code ---------------------------------------------------------------------------------------------

Body: TypeAlias = FunctionType | type


def _body(strategy: object) -> Body:
    """The function or class that holds the strategy's code."""
    if isinstance(strategy, functools.partial):
        return _body(strategy.func)
    if isinstance(strategy, MethodType):
        return _body(strategy.__self__)
    return strategy if isinstance(strategy, FunctionType | type) else type(strategy)


def _method(strategy: object) -> str:
    """Which method of its class is meant, where a bound method is the strategy."""
    if isinstance(strategy, functools.partial):
        return _method(strategy.func)
    return strategy.__name__ if isinstance(strategy, MethodType) else ""


def _package(body: Body) -> str:
    return str(body.__module__ or "").partition(".")[0]


def _code(root: Body, home: str) -> bytes:
    """All code of the package `home` that `root` reaches, in one order, however it is reached."""
    parts: set[bytes] = set()
    seen: set[int] = set()  # Addresses, to walk circles once; none of them leaves this function.
    queue = [root]
    while queue:
        body = queue.pop()
        if id(body) in seen or _package(body) != home:
            continue
        seen.add(id(body))
        source = _source(body)
        bindings = []
        for name, value in _reached(body, home, has_source=source is not None):
            if isinstance(value, FunctionType | type):
                queue.append(value)
            try:
                told = _encode(value, home) if _is_constant(value) else _label(value)
            except StrategyError as error:
                raise StrategyError(f"{body.__qualname__} uses {name}: {error}") from error
            bindings.append(_packed(name, told))
        text = source or _bytecode_of(body)
        parts.add(_packed("code", _label(body), text, *sorted(bindings)))
    return _packed("all", _label(root), *sorted(parts))


def _is_constant(value: object) -> bool:
    return isinstance(value, CONSTANT) or library_of(value) is not None


def _label(thing: object) -> bytes:
    """What something that does not count by its value is called."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or ""
    return _packed(type(thing).__qualname__, str(name).encode())


def _source(body: Body) -> bytes | None:
    """The source of one function or class; None where there is none."""
    # Asked of a decorated function itself, inspect answers with the function it wraps.
    origin = body.__code__ if isinstance(body, FunctionType) else body
    try:
        source = textwrap.dedent(inspect.getsource(origin)).encode()
    except (OSError, TypeError):
        return None
    # One line may hold several lambdas.
    return source + _bytecode_of(body) if body.__name__ == "<lambda>" else source


def _bytecode_of(body: Body) -> bytes:
    return b"".join(_bytecode(function.__code__) for function in _functions(body))


def _bytecode(code: CodeType) -> bytes:
    """What the code does, without where it stands (file, line) and how it was specialised."""
    constants = (
        _bytecode(each) if isinstance(each, CodeType) else _encode(each, "")
        for each in code.co_consts
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    shape = _encode((names, counts), "")
    return _packed("bytecode", code.co_code, code.co_exceptiontable, shape, *constants)


def _functions(body: Body) -> Iterator[FunctionType]:
    """The functions of a class's own body, by name; of a function the function itself."""
    if isinstance(body, FunctionType):
        yield body
        return
    for _, value in sorted(vars(body).items()):
        accessors = (value.fget, value.fset) if isinstance(value, property) else (value,)
        for each in accessors:
            function = getattr(each, "__func__", each)  # Of a static or class method.
            function = getattr(function, "func", function)  # Of a cached property.
            if isinstance(function, FunctionType):
                yield function


def _reached(body: Body, home: str, *, has_source: bool) -> Iterator[tuple[str, object]]:
    """What the body uses and its text does not tell: functions, classes and constants it names,
    bases, and the values that attributes and defaults were given when it was defined."""
    if isinstance(body, type):
        yield from (("base", base) for base in body.__mro__[1:])
        attributes = ((name, value) for name, value in vars(body).items() if name[:2] != "__")
        yield from (each for each in attributes if _is_constant(each[1]))
    for function in _functions(body):
        # What `dataclass` generates says nothing that the source of the class does not say.
        if isinstance(body, type) and has_source and function.__code__.co_filename == "<string>":
            continue
        names = sorted(set(_names(function.__code__)))
        for name, value in _defaults(function).items():
            yield from _leaves(f"{function.__name__}({name})", value, names, home)
        outside = function.__globals__ | _closure(function)
        for name in names:
            if name in outside:
                yield from _leaves(name, outside[name], names, home)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _leaves(name: str, value: object, names: list[str], home: str) -> Iterator[tuple[str, object]]:
    """One name's value; instead of a module of the package what it holds under `names`, instead of
    a tuple its items, instead of a cache or a compiled function what it was made of."""
    wrapped = getattr(value, "__wrapped__", None)
    if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == home:
        held = vars(value)
        for inner in names:
            if inner in held and not isinstance(held[inner], ModuleType):
                yield from _leaves(f"{name}.{inner}", held[inner], names, home)
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from _leaves(f"{name}[{at}]", item, names, home)
    elif isinstance(wrapped, FunctionType) and not isinstance(value, FunctionType):
        yield name, wrapped
    else:
        yield name, value
