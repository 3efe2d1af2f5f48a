"""Copied into each job's environment: directs the documented login of containers to the embedded Snowflake.

Real containers log in with host, account and token alone, because there the port is 443 and the protocol https.
It uses the standard library only, and imports the connector no earlier than the job does.
"""

from __future__ import annotations

import sys
from functools import wraps
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _ConnectorFinder:
    """Patches the connector when it is imported, then removes itself."""

    def __init__(self, host: str, port: str, protocol: str) -> None:
        self._host = host
        self._defaults = {"port": port, "protocol": protocol}

    def find_spec(self, name: str, path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        if name != "snowflake.connector.connection":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        loader = spec.loader
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self._fill_in(module.SnowflakeConnection)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _fill_in(self, connection: Any) -> None:
        connect = connection.connect

        @wraps(connect)
        def to_emulator(this: object, **kwargs: Any) -> Any:
            port = kwargs.get("port") or self._defaults["port"]
            if kwargs.get("host") == self._host and str(port) == self._defaults["port"]:
                kwargs |= {name: value for name, value in self._defaults.items() if not kwargs.get(name)}
            return connect(this, **kwargs)

        connection.connect = to_emulator


def install(host: str, port: str, protocol: str) -> None:
    """Add port and protocol to connections to ``host`` that leave them out."""
    sys.meta_path.insert(0, _ConnectorFinder(host, port, protocol))
