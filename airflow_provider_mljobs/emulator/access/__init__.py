"""Roles and privileges: who may see, use and drop which object of the account."""
