"""The Terrane partition under UEFI: found on the disk that the loader came from, and read whole. Nothing in it is believed here."""

from __future__ import annotations

from typing import Final

from boot.firmware import BLOCK_IO, DEVICE_PATH, LOADED_IMAGE, allocate_low, protocol_of, require_with_firmware
from boot.header import HEADER_MAGIC, HEADER_SIZE
from boot.parameters import BootParameters
from boot.refusal import Refusal, Rule
from dsl.hw.uefi import (
    BY_PROTOCOL,
    END_NODE,
    MEDIA_NODE,
    PARTITION_NODE,
    SUCCESS,
    BlockIo,
    BlockMedia,
    BootServices,
    DevicePathNode,
    LoadedImage,
    SystemTable,
)
from dsl.lang import (
    HostVirtual,
    address_of,
    array_at,
    efi_call,
    frame_array,
    machine,
    minimum,
    static_array,
    u8,
    u64,
    upto,
)

NODES: Final = 64  # no device path has as many
CHUNK_SIZE: Final = 1 << 20  # bytes of one read
LARGEST_BLOCK: Final = 4096
LARGEST_PARTITION: Final = 1 << 32
PROBE: Final = static_array(u8, HEADER_SIZE, align=4096)


@machine
def parent_length(path: HostVirtual) -> u64:
    """Bytes of a device path before its last node, which must be a partition; 0 if it is not."""
    offset = u64(0)
    last = u64(0)
    partition = False
    for _ in upto(NODES):
        # Safe because firmware ends each path by a node that says so.
        node = DevicePathNode.at(path + offset)
        if node.type == END_NODE:
            return last if partition else u64(0)
        partition = node.type == MEDIA_NODE and node.subtype == PARTITION_NODE
        last = offset
        offset += u64(node.length_low) | (u64(node.length_high) << 8)
    return u64(0)


@machine
def is_same_path(path: HostVirtual, other: HostVirtual, length: u64) -> bool:
    """Whether two device paths begin with the same bytes, both with at least as many."""
    for index in upto(length):
        # Safe because the first path is that long, and what differs ends the search before the other's end.
        if array_at(u8, path + index, u64(1))[0] != array_at(u8, other + index, u64(1))[0]:
            return False
    return True


@machine
def boot_path(system: SystemTable, image: u64) -> HostVirtual:
    """The device path of the partition that the loader was read from; refuses if there is none."""
    # Safe because these are firmware's tables.
    boot = BootServices.at(system.boot_services)
    loaded = protocol_of(boot, image, LOADED_IMAGE)
    if loaded == HostVirtual(0):
        require_with_firmware(system, Refusal(Rule.UEFI_LOADED_IMAGE, u64(0), u64(0), u64(0)))
    path = protocol_of(boot, LoadedImage.at(loaded).device, DEVICE_PATH)
    if path == HostVirtual(0) or parent_length(path) == 0:
        require_with_firmware(system, Refusal(Rule.UEFI_BOOT_PATH, u64(0), u64(0), u64(0)))
    return path


@machine
def read_bytes(partition: BlockIo, target: HostVirtual, size: u64) -> u64:
    """Read the first `size` bytes, a multiple of the block size; the status."""
    # Safe because firmware's interface says where its media are.
    media = BlockMedia.at(partition.media)
    interface = address_of(partition).as_u64()
    offset = u64(0)
    while offset < size:
        count = minimum(size - offset, u64(CHUNK_SIZE))
        block = offset // u64(media.block_size)
        status = efi_call(
            partition.read_blocks, interface, u64(media.identifier), block, count, (target + offset).as_u64()
        )
        if status != SUCCESS:
            return status
        offset += count
    return u64(SUCCESS)


@machine
def partition_size(partition: BlockIo) -> u64:
    """Bytes of a partition that has a header's room at least; 0 for anything else."""
    # Safe because firmware's interface says where its media are.
    media = BlockMedia.at(partition.media)
    block_size = u64(media.block_size)
    if media.present == 0 or block_size == 0 or block_size > LARGEST_BLOCK or block_size & (block_size - 1) != 0:
        return u64(0)
    if media.last_block >= LARGEST_PARTITION // block_size:
        return u64(0)
    size = (media.last_block + 1) * block_size
    return size if size >= HEADER_SIZE else u64(0)


@machine
def is_terrane(partition: BlockIo) -> bool:
    """Whether a partition begins as ours does. That is no check: the signature comes later, whatever this says."""
    if partition_size(partition) == 0 or read_bytes(partition, address_of(PROBE), u64(HEADER_SIZE)) != SUCCESS:
        return False
    return PROBE.load_u64(u64(0)) == HEADER_MAGIC


@machine
def find_partition(system: SystemTable, image: u64) -> BlockIo:
    """The first partition that begins as ours does, on the very disk that the loader came from; refuses if there is none."""
    boot = BootServices.at(system.boot_services)  # Safe because these are firmware's tables.
    path = boot_path(system, image)
    length = parent_length(path)
    answer = frame_array(u64, 2)  # count, place of the handles
    place = address_of(answer).as_u64()
    status = efi_call(
        boot.locate_handle_buffer, u64(BY_PROTOCOL), address_of(BLOCK_IO).as_u64(), u64(0), place, place + 8
    )
    count = answer[0] if status == SUCCESS else u64(0)
    # Safe because firmware gave a list of as many.
    handles = array_at(u64, HostVirtual(answer[1]), count)
    for index in upto(count):
        other = protocol_of(boot, handles[index], DEVICE_PATH)
        if other != HostVirtual(0) and parent_length(other) == length and is_same_path(path, other, length):
            partition = BlockIo.at(protocol_of(boot, handles[index], BLOCK_IO))
            if is_terrane(partition):
                return partition
    require_with_firmware(system, Refusal(Rule.UEFI_PARTITION, u64(0), u64(0), count))
    return BlockIo.at(HostVirtual(0))  # never reached: it stopped


@machine
def read_partition(system: SystemTable, image: u64, parameters: BootParameters) -> None:
    """Read the whole partition to memory below 4 GiB, and note where; refuses what cannot be read."""
    partition = find_partition(system, image)
    size = partition_size(partition)
    place = allocate_low(system, size, Rule.UEFI_STAGING)
    status = read_bytes(partition, HostVirtual(place), size)
    if status != SUCCESS:
        require_with_firmware(system, Refusal(Rule.UEFI_READ, u64(0), size, status))
    parameters.staging_base = place
    parameters.staging_size = size
