"""The price of compute pool nodes: credits per hour by instance family, from Snowflake's price list."""

from __future__ import annotations

# Snowflake Service Consumption Table, effective May 12, 2026, tables 1(f) and 1(g), "SPCS Compute", from public
# transcripts of that PDF (https://www.snowflake.com/legal-files/CreditConsumptionTable.pdf). If the clouds differ, the
# highest price counts, so that the estimate isn't too low.
_CREDITS = {
    "CPU_X64_XS": 0.06,
    "CPU_X64_S": 0.11,
    "CPU_X64_M": 0.22,
    "CPU_X64_SL": 0.41,
    "CPU_X64_L": 0.83,
    "HIGHMEM_X64_S": 0.28,
    "HIGHMEM_X64_M": 1.11,
    "HIGHMEM_X64_SL": 2.93,
    "HIGHMEM_X64_L": 4.44,
    "GPU_NV_XS": 0.25,
    "GPU_NV_S": 0.57,
    "GPU_NV_SM": 1.70,
    "GPU_NV_M": 2.68,
    "GPU_NV_2M": 3.50,
    "GPU_NV_3M": 3.55,
    "GPU_NV_SL": 13.50,
    "GPU_NV_L": 14.12,
    "GPU_GCP_NV_L4_1_24G": 0.43,
    "GPU_GCP_NV_L4_4_24G": 1.94,
    "GPU_GCP_NV_A100_8_40G": 11.68,
    "GEN_ARM_G1_2": 0.084,
    "GEN_ARM_G1_4": 0.168,
    "GEN_ARM_G1_8": 0.336,
    "GEN_ARM_G1_16": 0.672,
    "GEN_ARM_G1_32": 1.344,
    "GEN_X64_G2_2": 0.092,
    "GEN_X64_G2_4": 0.184,
    "GEN_X64_G2_8": 0.368,
    "GEN_X64_G2_16": 0.688,
    "GEN_X64_G2_32": 1.472,
    "MEM_X64_G2_8": 0.392,
    "MEM_X64_G2_32": 1.568,
    "MEM_X64_G2_64": 3.136,
    "MEM_X64_G2_96": 3.732,
    "MEM_X64_G2_192": 9.408,
    "GPU_L40S_G1_8": 1.58,
    "GPU_L40S_G1_16": 3.16,
    "GPU_L40S_G1_48": 9.48,
    "GPU_L40S_G1_192": 37.92,
    "GPU_R6K_G1_8": 2.537,
    "GPU_R6K_G1_16": 5.074,
    "GPU_R6K_G1_32": 10.148,
    "GPU_R6K_G1_48": 15.222,
    "GPU_R6K_G1_96": 30.444,
    "GPU_R6K_G1_192": 60.888,
    "GPU_A100_G1_12": 5.051,
    "GPU_A100_G1_48": 20.204,
}


def credits_per_hour(instance_family: str, nodes: int) -> float | None:
    """Return the credits per hour of an instance family's nodes; ``None`` for an unlisted family."""
    rate = _CREDITS.get(instance_family.upper())
    return None if rate is None else rate * nodes
