"""The arguments of one run of a payload: they travel in the specification, or as a file in the job's directory.

They are not part of the payload, so tasks that run the same code with different arguments share one upload.
"""

from __future__ import annotations

import inspect
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload.functions import called, refuse_call, stands_alone, validate_serializer
from airflow_provider_mljobs.jobs.payload.pickles import by_value, pickled_by
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
_TOO_LARGE = (
    f"takes the arguments over the limit of {_MAX_BYTES // 2**30} GiB. Write the data to a table or a stage, and pass "
    "its name"
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of one run of a payload.

    :param inline: JSON for the specification, in printable ASCII without ``$``; ``None`` if it is among the files.
    :param files: content by name: JSON that is too large for the specification, and values that are no JSON.
    :param references: values on a stage, in the order of their directories in the job.
    :param pickled: the arguments that hold pickles, for messages.
    """

    inline: str | None
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    references: tuple[StageRef, ...] = ()
    pickled: tuple[str, ...] = ()

    @classmethod
    def of_script(cls, args: Sequence[Any], *, to_process: bool = False) -> Arguments:
        """Pack a script's arguments: see :func:`script_arguments`."""
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
        pickle, at any depth; any other value is pickled.

        :param serializer: ``"source"`` allows no pickle, ``"cloudpickle"`` pickles each argument that is no JSON.
        """
        named = dict(kwargs or {})
        validate_arguments(args)
        validate_serializer(serializer)
        refuse_call(function, args, named)
        call = _Call(function=function, args=tuple(args), kwargs=named, importable=importable)
        may_define = serializer != "cloudpickle" and (serializer == "source" or stands_alone(function, importable))
        document, encoder = call.encode(serializer, may_define=may_define)
        if encoder.pickled and any("source" in entry for entry in encoder.classes):
            # A pickle may hold the same classes, and in the job they would be unequal to those defined by source.
            document, encoder = call.encode(serializer, may_define=False)
        names = dict.fromkeys(document.get("pickled", {}).get("arguments", ()))
        return replace(
            cls._pack(document, encoder.files, tuple(encoder.references)),
            pickled=tuple(f"Argument {name!r}" for name in names),
        )

    @classmethod
    def _pack(cls, document: Any, files: Mapping[str, bytes], references: tuple[StageRef, ...] = ()) -> Arguments:
        inline = to_ascii(document)
        if len(inline) > _MAX_INLINE:
            return cls(inline=None, files={**files, ARGUMENTS_JSON: inline.encode()}, references=references)
        return cls(inline=inline, files=files, references=references)

    @property
    def archive(self) -> bytes:
        """The files as one zip file, for one upload."""
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
        """Return the call as JSON, and the encoder with its files."""
        encoder = Encoder(
            may_pickle=serializer != "source", may_define=may_define, importable=self.importable, limit=_MAX_BYTES
        )
        names, arguments = self._names, [*self.args, *self.kwargs.values()]
        # The name of the argument of each pickled value.
        pickled: list[str] = []
        values: list[Any] = []
        for name, value in zip([*names, *self.kwargs], arguments, strict=True):
            values.append(self._value(encoder, name, value, whole=serializer == "cloudpickle"))
            pickled += [name] * (len(encoder.pickled) - len(pickled))
        document: dict[str, Any] = {
            "args": values[: len(names)],
            "kwargs": dict(zip(self.kwargs, values[len(names) :], strict=True)),
        }
        if any(written is not value for written, value in zip(values, arguments, strict=True)):
            document["names"] = names
        if encoder.classes:
            document["classes"] = encoder.classes
        if pickled:
            document["pickled"] = {"by": pickled_by(), "arguments": pickled}
            encoder.files[ARGUMENTS_PICKLE] = self._pickle(pickled, encoder.pickled)
        return document, encoder

    @property
    def _names(self) -> list[str]:
        """The names of the positional arguments."""
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
            self._refuse(name, _TOO_LARGE)
        except RecursionError:
            self._refuse(name, "is nested too deeply, or contains itself. Pass its parts, or a table's name")
        except UnicodeEncodeError:
            self._refuse(name, "has half a surrogate pair in its name. Use a valid name")

    def _pickle(self, names: Sequence[str], values: Sequence[Any]) -> bytes:
        import cloudpickle

        file = io.BytesIO()
        # One pickler for all values: their common parts stay common.
        pickler = cloudpickle.Pickler(file)
        with by_value(self.function, self.importable):
            for name, value in zip(names, values, strict=True):
                try:
                    pickler.dump(value)
                except Exception as error:
                    raise PayloadError(
                        f"Argument {name!r} of {called(self.function)!r}, of type {type(value).__name__}, can't be "
                        f"pickled for the job: {error}. Pass the data to rebuild it: a table name, a stage path, "
                        "numbers and text."
                    ) from error
                if file.tell() > _MAX_BYTES:
                    self._refuse(name, _TOO_LARGE)
        return file.getvalue()

    def _refuse(self, name: str, reason: str) -> NoReturn:
        raise PayloadError(f"Argument {name!r} of {called(self.function)!r} {reason}.")


def script_arguments(args: Sequence[Any], *, to_process: bool = False) -> list[str]:
    """Return a script's arguments as text.

    :param to_process: whether they start a process, which takes at most 100 KB in one argument.
    """
    validate_arguments(args)
    texts = []
    for index, arg in enumerate(args):
        if not isinstance(arg, (str, int, float, Path)):
            raise InvalidJobSpecError(
                f"args[{index}] is of type {type(arg).__name__}; a script takes text and numbers. Write it as text."
            )
        validate_text(str(arg), f"args[{index}]", any_size=not to_process)
        texts.append(str(arg))
    return texts


def validate_arguments(args: object) -> None:
    """Refuse anything but a list, above all a text."""
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise InvalidJobSpecError(f"args must be a list of arguments, got {args!r}.")
