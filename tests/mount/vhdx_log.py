"""A VHDX whose machine died: its log holds an entry that was not replayed. QEMU empties the log with every write, so it
leaves none behind. By [MS-VHDX], Virtual Hard Disk v2 (VHDX) File Format, 2.2.2 (headers) and 2.3 (log)."""
import struct
import uuid

HEADERS = (64 << 10, 128 << 10)
HEADER_SIZE = SECTOR = 4096
SEQUENCE, LOG_GUID, LOG_PLACE = 8, 48, 68  # in a header: its number, the log's id, the log's length and offset
UPDATE = 16 << 20  # where the entry says a sector is to be written: behind what a small image uses


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_checksum(block):
    """Both headers and entries have theirs behind the signature; it counts as zeros."""
    cleared = block[:4] + bytes(4) + block[8:]
    return cleared[:4] + struct.pack("<I", crc32c(cleared)) + cleared[8:]


def entry(log, file_size):
    """One sector's worth: a header, a descriptor and the sector."""
    sequence = 1
    header = struct.pack("<4sIIIQII16sQQ", b"loge", 0, 2 * SECTOR, 0, sequence, 1, 0, log, file_size, file_size)
    content = b"replayed" * 512
    descriptor = struct.pack("<4s4s8sQQ", b"desc", content[-4:], content[:8], UPDATE, sequence)
    data = struct.pack("<4sI", b"data", sequence >> 32) + content[8:-4] + struct.pack("<I", sequence & 0xFFFFFFFF)
    return with_checksum((header + descriptor).ljust(SECTOR, b"\0") + data)


def leave_log(path):
    """Gives the image at `path` such a log."""
    with open(path, "r+b") as file:
        image = file.read()
        log = uuid.uuid4().bytes_le
        current = max(HEADERS, key=lambda at: struct.unpack_from("<Q", image, at + SEQUENCE)[0])
        header = bytearray(image[current:current + HEADER_SIZE])
        header[LOG_GUID:LOG_GUID + len(log)] = log
        _, offset = struct.unpack_from("<IQ", header, LOG_PLACE)
        file.seek(current)
        file.write(with_checksum(bytes(header)))
        file.seek(offset)
        file.write(entry(log, len(image)))
