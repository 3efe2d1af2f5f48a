"""The arguments of one run of a payload, as they travel: in the specification, or beside the job's result.

They are no part of the payload, so that tasks that run the same code with different arguments share one upload.
"""

from __future__ import annotations

import inspect
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload.functions import called, refuse_call, stands_alone, validate_serializer
from airflow_provider_mljobs.jobs.payload.pickles import Pickler, by_value, pickled_by
from airflow_provider_mljobs.jobs.values.codec import Encoder, RefusedError, TooLargeError, is_json
from airflow_provider_mljobs.jobs.values.escaping import to_ascii, validate_text
from airflow_provider_mljobs.launcher.contract import ARGUMENTS_JSON, ARGUMENTS_PICKLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_mljobs.jobs.payload.functions import Serializer
    from airflow_provider_mljobs.jobs.values.references import StageRef

# The specification is one SQL statement of at most 1 MB; Linux takes 128 KB in one string of an environment.
_MAX_INLINE = 50_000
_MAX_BYTES = 2**30
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What one run of a payload is given.

    :param inline: JSON for the specification, in printable ASCII without ``$``; ``None`` when it is among the files.
    :param files: what is too large for the specification, or no JSON: content by name.
    :param references: values on a stage, in the order of the directories that the job finds them in.
    """

    inline: str | None
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    references: tuple[StageRef, ...] = ()

    @classmethod
    def of_script(cls, args: Sequence[Any], *, to_process: bool = False) -> Arguments:
        """Pack a script's arguments. Example: ``Arguments.of_script(["--epochs", 3])``.

        :param args: text, numbers and paths.
        :param to_process: whether a process is started with them, instead of a Python file in the launcher's own.
        :raises InvalidJobSpecError: if one is no text, or can't be an argument.
        """
        return cls._pack(script_arguments(args, to_process=to_process), {})

    @classmethod
    def of_function(
        cls,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        serializer: Serializer = "auto",
        importable: Collection[str] = (),
    ) -> Arguments:
        """Pack the arguments of a function's call. Example: ``Arguments.of_function(train, [frame], {"depth": 6})``.

        JSON, dates, numbers, paths, collections, enumerations, dataclasses, DataFrames and arrays travel without
        pickle, however deep they are nested; any other value is pickled.

        :param serializer: ``"source"`` allows no pickle, ``"cloudpickle"`` pickles each argument that is no JSON.
        :param importable: names of modules that travel with the payload.
        :raises PayloadError: if the function doesn't take them, or one can't be packed; the message names it.
        :raises InvalidJobSpecError: if the serializer is none, or a reference is damaged.
        """
        named = dict(kwargs or {})
        validate_arguments(args)
        validate_serializer(serializer)
        refuse_call(function, args, named)
        call = _Call(function=function, args=tuple(args), kwargs=named, importable=importable)
        may_define = serializer != "cloudpickle" and (serializer == "source" or stands_alone(function, importable))
        document, encoder = call.encode(serializer, may_define=may_define)
        if encoder.pickled and encoder.has_defined:
            # What is pickled may hold the same classes, and a job that has both finds them unequal.
            document, encoder = call.encode(serializer, may_define=False)
        return cls._pack(document, encoder.files, tuple(encoder.references))

    @classmethod
    def _pack(cls, document: Any, files: Mapping[str, bytes], references: tuple[StageRef, ...] = ()) -> Arguments:
        inline = to_ascii(document)
        if len(inline) > _MAX_INLINE:
            return cls(inline=None, files={**files, ARGUMENTS_JSON: inline.encode()}, references=references)
        return cls(inline=inline, files=files, references=references)

    @property
    def archive(self) -> bytes:
        """The files as one: one upload."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in self.files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Call:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    importable: Collection[str]

    def encode(self, serializer: Serializer, *, may_define: bool) -> tuple[dict[str, Any], Encoder]:
        """Return the call as JSON, and what lies beside it."""
        encoder = Encoder(
            may_pickle=serializer != "source", may_define=may_define, importable=self.importable, limit=_MAX_BYTES
        )
        names, given = self._names, [*self.args, *self.kwargs.values()]
        # Which argument each pickled value belongs to.
        pickled: list[str] = []
        values: list[Any] = []
        for name, value in zip([*names, *self.kwargs], given, strict=True):
            values.append(self._value(encoder, name, value, whole=serializer == "cloudpickle"))
            pickled += [name] * (len(encoder.pickled) - len(pickled))
        document: dict[str, Any] = {
            "args": values[: len(names)],
            "kwargs": dict(zip(self.kwargs, values[len(names) :], strict=True)),
        }
        if any(written is not value for written, value in zip(values, given, strict=True)):
            document["names"] = names
        if encoder.classes:
            document["classes"] = encoder.classes
        if pickled:
            document["pickled"] = {"by": pickled_by(), "arguments": pickled}
            encoder.files[ARGUMENTS_PICKLE] = self._pickle(pickled, encoder.pickled)
        return document, encoder

    @property
    def _names(self) -> list[str]:
        """What the function calls the arguments that are given by position."""
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.function).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind in by_position][: len(self.args)]
        return names + [f"args[{index}]" for index in range(len(names), len(self.args))]

    def _value(self, encoder: Encoder, name: str, value: Any, *, whole: bool) -> Any:
        try:
            name.encode()
            if is_json(value):
                return value
            return encoder.pickle(value) if whole else encoder.encode(value)
        except RefusedError as error:
            self._refuse(
                name,
                f"holds a value {error}. serializer='source' allows no pickle: pass JSON, dates, paths, dataclasses, "
                "DataFrames or arrays, or leave serializer at 'auto'",
            )
        except TooLargeError:
            self._refuse(name, _too_large())
        except RecursionError:
            self._refuse(name, "is nested too deeply, or holds itself. Pass its parts, or a table's name")
        except UnicodeEncodeError:
            self._refuse(name, "has half a surrogate pair in its name, which is no valid text")

    def _pickle(self, names: Sequence[str], values: Sequence[Any]) -> bytes:
        pickler = Pickler()
        with by_value(self.function, self.importable):
            for name, value in zip(names, values, strict=True):
                try:
                    pickler.dump(value)
                except Exception as error:
                    raise PayloadError(
                        f"Argument {name!r} of {called(self.function)!r}, of type {type(value).__name__}, can't be "
                        f"sent to the job: {error}. Pass what it is made of: a table name, a stage path, numbers and "
                        "text."
                    ) from error
                if pickler.size > _MAX_BYTES:
                    self._refuse(name, _too_large())
        return pickler.content

    def _refuse(self, name: str, reason: str) -> NoReturn:
        raise PayloadError(f"Argument {name!r} of {called(self.function)!r} {reason}.")


def _too_large() -> str:
    return (
        f"brings the arguments over the {_MAX_BYTES // 2**30} GiB that a job takes. Write the data to a table or a "
        "stage, and pass its name"
    )


def script_arguments(args: Sequence[Any], *, to_process: bool = False) -> list[str]:
    """Return a script's arguments as text, each exactly as it was given.

    :param to_process: whether a process is started with them, which takes no more than 100 KB in one.
    :raises InvalidJobSpecError: naming the one that can't be.
    """
    validate_arguments(args)
    texts = []
    for index, arg in enumerate(args):
        if not isinstance(arg, (str, int, float, Path)):
            raise InvalidJobSpecError(
                f"args[{index}] is of type {type(arg).__name__}; a script takes text and numbers. Write it as a string."
            )
        validate_text(str(arg), f"args[{index}]", any_size=not to_process)
        texts.append(str(arg))
    return texts


def validate_arguments(args: object) -> None:
    """Refuse what is no list, above all a text, which is one of letters."""
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise InvalidJobSpecError(f"args must be a list of arguments, got {args!r}.")
