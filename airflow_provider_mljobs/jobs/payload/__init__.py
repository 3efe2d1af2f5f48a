"""Payloads: code, packed into an archive that starts itself."""
