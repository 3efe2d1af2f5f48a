"""The connector's protocol over HTTP: logins, requests, results, and which part answers a statement."""

from __future__ import annotations
