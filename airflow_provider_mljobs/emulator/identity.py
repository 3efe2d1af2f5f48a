"""The names of the embedded account: organization, region, user and role, and the address that it listens on."""

LOCATOR = "MLJOBS"
ORGANIZATION = "EMBEDDED"
# Cloud and region, as CURRENT_REGION writes them.
REGION = "EMBEDDED_LOCAL"
USER = "MLJOBS"
ROLE = "ACCOUNTADMIN"
HOST = "127.0.0.1"
