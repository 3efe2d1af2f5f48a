"""The names of the embedded account: organization, region, user and role, and the address that it listens on."""

LOCATOR = "MLJOBS"
ORGANIZATION = "EMBEDDED"
# As CURRENT_REGION writes it. Clients know three clouds, and look theirs up in SHOW REGIONS; no cloud has this region.
CLOUD = "AWS"
REGION = f"{CLOUD}_LOCAL"
USER = "MLJOBS"
ROLE = "ACCOUNTADMIN"
HOST = "127.0.0.1"
