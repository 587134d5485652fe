"""Record: a frozen value aggregate that lives in registers; the only aggregate a function returns."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform

from dsl.lang.annotations import DeclaredClass, resolve_fields
from dsl.lang.types import ScalarType, Type

if TYPE_CHECKING:
    _Values = object
else:
    _Values = tuple


class RecordClass(DeclaredClass):
    """The class of Record classes: knows the fields' types."""

    _record: dict[str, Type] | None
    _fields: tuple[tuple[str, Any, Type], ...]  # full name, class that says enough by itself or None, type

    def __new__(meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> RecordClass:
        cls: RecordClass = super().__new__(meta, name, bases, namespace, **keywords)
        cls._record, cls._fields = None, ()
        for index, field in enumerate(namespace.get("__annotations__", {})):
            if field in namespace:
                raise cls.wrong("a Record's fields have no defaults", field)
            setattr(cls, field, property(itemgetter(index)))
        return cls

    @property
    def __record__(cls) -> dict[str, Type]:
        """The fields' types by name, in order."""
        if cls._record is None:
            cls._record = cls.outside_itself(_described)
        return cls._record

    def _prepare(cls) -> tuple[tuple[str, Any, Type], ...]:
        cls._fields = tuple(
            (f"{cls.__name__}.{name}", kind.python if isinstance(kind, ScalarType) else None, kind)
            for name, kind in cls.__record__.items()
        )
        return cls._fields

    def _arrange(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All values in the order of the fields."""
        names = list(cls.__record__)
        if len(values) > len(names) or any(name not in names[len(values) :] for name in named):
            raise TypeError(f"{cls.__name__} takes {', '.join(names)}")
        missing = [name for name in names[len(values) :] if name not in named]
        if missing:
            raise TypeError(f"{cls.__name__}: {', '.join(missing)} not given")
        return (*values, *(named[name] for name in names[len(values) :]))


def _described(cls: RecordClass) -> dict[str, Type]:
    fields = resolve_fields(cls)
    for kind in fields.values():
        _ = kind.parts
    return fields


@dataclass_transform(frozen_default=True)
class Record(_Values, metaclass=RecordClass):
    """Base of records: annotate the fields, construct by position or keyword. No defaults, no comparison."""

    if TYPE_CHECKING:
        __record__: ClassVar[dict[str, Type]]
    else:

        def __new__(cls, *values, **named):
            """Check each value against its field's type."""
            fields = cls._fields or cls._prepare()
            if named or len(values) != len(fields):
                values = cls._arrange(values, named)
            for (name, accept, kind), value in zip(fields, values, strict=True):
                if value.__class__ is not accept:
                    kind.require(value, name)
            return tuple.__new__(cls, values)

        def _refuse(self, *_others) -> NoReturn:
            raise TypeError(f"{self.__class__.__name__} is a Record: use its fields")

        __iter__ = __len__ = __add__ = __mul__ = __rmul__ = __contains__ = __bool__ = _refuse
        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
        __hash__ = None

        def __repr__(self):
            content = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__class__.__record__)
            return f"{self.__class__.__name__}({content})"
