"""The machine types of compute pools, as an account on AWS offers them."""

from __future__ import annotations

from dataclasses import dataclass

_STORAGE_GIB = 100


@dataclass(frozen=True, slots=True)
class InstanceFamily:
    """A machine type: the resources of one node of a pool.

    :param node_limit: the limit of such nodes in one account; 0 for machines on request, which isn't checked.
    :param gpu_memory_gib: memory of each GPU.
    :param room_gib: the memory for instances on an empty node, where it seems to be less than Snowflake shows.
    """

    name: str
    vcpu: int
    memory_gib: int
    node_limit: int
    gpu: str | None = None
    gpu_count: int = 0
    gpu_memory_gib: int = 0
    storage_gib: int = _STORAGE_GIB
    room_gib: int | None = None

    @property
    def description(self) -> str:
        """A description in words."""
        machine = f"{self.vcpu} vCPU, {self.memory_gib} GiB memory"
        return f"{machine}, {self.gpu_count} {self.gpu} GPU" if self.gpu else machine


# Snowflake's tables have 28 and 58 GiB, and the last client that wrote its own specification (snowflake-ml-python 1.20)
# requests 27 and 54. The specification reference, too, has 27.
_NEW, _PREVIOUS, _FEW, _FEWER, _ON_REQUEST = 150, 500, 10, 5, 0

_ALL = (
    InstanceFamily("CPU_X64_XS", 1, 6, _PREVIOUS),
    InstanceFamily("CPU_X64_S", 3, 13, _PREVIOUS),
    InstanceFamily("CPU_X64_M", 6, 28, _PREVIOUS),
    InstanceFamily("CPU_X64_SL", 14, 58, _PREVIOUS, room_gib=54),
    InstanceFamily("CPU_X64_L", 28, 116, _PREVIOUS),
    InstanceFamily("HIGHMEM_X64_S", 6, 58, _PREVIOUS),
    InstanceFamily("HIGHMEM_X64_M", 28, 240, _PREVIOUS),
    InstanceFamily("HIGHMEM_X64_L", 124, 984, _PREVIOUS),
    InstanceFamily("GEN_X64_G2_2", 1, 6, _NEW),
    InstanceFamily("GEN_X64_G2_4", 3, 13, _NEW),
    InstanceFamily("GEN_X64_G2_8", 6, 28, _NEW),
    InstanceFamily("GEN_X64_G2_32", 28, 116, _NEW),
    InstanceFamily("GEN_ARM_G1_2", 1, 6, _NEW),
    InstanceFamily("GEN_ARM_G1_4", 3, 13, _NEW),
    InstanceFamily("GEN_ARM_G1_8", 6, 28, _NEW),
    InstanceFamily("GEN_ARM_G1_16", 14, 58, _NEW),
    InstanceFamily("GEN_ARM_G1_32", 28, 116, _NEW),
    InstanceFamily("MEM_X64_G2_8", 6, 58, _NEW),
    InstanceFamily("MEM_X64_G2_32", 28, 240, _NEW),
    InstanceFamily("MEM_X64_G2_64", 60, 492, _NEW),
    InstanceFamily("MEM_X64_G2_192", 188, 1436, _NEW),
    InstanceFamily("GPU_NV_S", 6, 28, _NEW, "NVIDIA A10G", 1, 24, room_gib=27),
    InstanceFamily("GPU_NV_M", 44, 178, _FEW, "NVIDIA A10G", 4, 24),
    InstanceFamily("GPU_NV_L", 92, 1112, _ON_REQUEST, "NVIDIA A100", 8, 40),
    InstanceFamily("GPU_L40S_G1_8", 6, 58, _FEWER, "NVIDIA L40S", 1, 48),
    InstanceFamily("GPU_L40S_G1_16", 14, 116, _FEWER, "NVIDIA L40S", 1, 48),
    InstanceFamily("GPU_L40S_G1_48", 44, 368, _FEWER, "NVIDIA L40S", 4, 48),
    InstanceFamily("GPU_L40S_G1_192", 188, 1436, _FEWER, "NVIDIA L40S", 8, 48),
    InstanceFamily("GPU_R6K_G1_8", 6, 58, _FEWER, "NVIDIA RTX PRO 6000", 1, 96),
    InstanceFamily("GPU_R6K_G1_16", 14, 116, _FEWER, "NVIDIA RTX PRO 6000", 1, 96),
    InstanceFamily("GPU_R6K_G1_32", 28, 240, _FEWER, "NVIDIA RTX PRO 6000", 1, 96),
    InstanceFamily("GPU_R6K_G1_48", 44, 490, _FEWER, "NVIDIA RTX PRO 6000", 2, 96),
    InstanceFamily("GPU_R6K_G1_96", 92, 984, _FEWER, "NVIDIA RTX PRO 6000", 4, 96),
    InstanceFamily("GPU_R6K_G1_192", 188, 1843, _FEWER, "NVIDIA RTX PRO 6000", 8, 96),
)

FAMILIES = {family.name: family for family in _ALL}
