"""The names of the embedded account: its organization, its user, its role and the address it listens on."""

LOCATOR = "MLJOBS"
ORGANIZATION = "EMBEDDED"
USER = "MLJOBS"
ROLE = "ACCOUNTADMIN"
HOST = "127.0.0.1"
