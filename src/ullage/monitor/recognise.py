"""What a payload is: by its first bytes, by the shape of its numbers, or because it reads as text."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

RANDOM: Final = "random"
TEXT: Final = "text"

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"RIFF", "riff"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x7fELF", "elf"),
    (b"\xca\xfe\xba\xbe", "java-class"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\x93NUMPY", "numpy-tensor"),
    (b"GGUF", "gguf-tensors"),
    (b"openssh-key-v1\0", "private-key"),
    (b"\0\0\0\x07ssh-rsa", "public-key"),
    (b"\0\0\0\x0bssh-ed25519", "public-key"),
    (b"\0\0\0\x13ecdsa-sha2-nistp256", "public-key"),
    (b"wOFF", "font"),
    (b"wOF2", "font"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"PAR1", "parquet"),
    (b"\x80\x04\x95", "pickle"),
    (b"age-encryption.org/", "age"),
    (b"Salted__", "openssl-encrypted"),
)
_BEGINNINGS: Final = tuple(magic for magic, _ in _MAGIC)
_LEAST_NUMBERS: Final = 8
_NORMAL: Final = (1e-6, 1e3)  # weights, activations and gradients lie here


def recognise(payload: bytes) -> str:
    """A word for the payload's kind; RANDOM if it looks like nothing."""
    if payload.startswith(_BEGINNINGS):
        return next(name for magic, name in _MAGIC if payload.startswith(magic))
    if is_text(payload):
        return TEXT
    if _is_der(payload):
        return "der"
    if _is_safetensors(payload):
        return "safetensors"
    return _tensor_kind(payload) or RANDOM


def is_text(payload: bytes) -> bool:
    """UTF-8 of printable characters, at least four of them, mostly ASCII or mostly letters."""
    if len(payload) < 4:
        return False
    try:
        text = payload[:65536].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(payload[:65536]) - 3:
            return False
        text = payload[: error.start].decode("utf-8")
    printable = sum(sign.isprintable() or sign in "\t\r\n" for sign in text)
    plain = sum(" " <= sign <= "~" or sign in "\t\r\n" or sign.isalpha() for sign in text)
    return printable == len(text) and plain > 0.8 * len(text)


def _is_der(payload: bytes) -> bool:
    """An ASN.1 sequence of exactly this length: keys and certificates."""
    if len(payload) < 32 or payload[0] != 0x30:
        return False
    first = payload[1]
    if first < 0x80:
        return first + 2 == len(payload)
    count = first & 0x7F
    return 1 <= count <= 3 and int.from_bytes(payload[2 : 2 + count], "big") + 2 + count == len(payload)


def _is_safetensors(payload: bytes) -> bool:
    return len(payload) > 16 and payload[8:10] == b'{"' and int.from_bytes(payload[:8], "little") < 1 << 27


def _tensor_kind(payload: bytes) -> str | None:
    """Numbers of ordinary size in float32 or bfloat16: a random word is one with probability 0.12."""
    sample = payload[:4096]
    if len(sample) >= 4 * _LEAST_NUMBERS and len(payload) % 4 == 0:
        numbers = np.frombuffer(sample[: len(sample) // 4 * 4], "<f4")
        if _are_normal(numbers):
            return "float32-tensor"
    if len(sample) >= 4 * _LEAST_NUMBERS and len(payload) % 2 == 0:
        halves = np.frombuffer(sample[: len(sample) // 2 * 2], "<u2").astype(np.uint32) << 16
        if _are_normal(halves.view(np.float32)):
            return "bfloat16-tensor"
    return None


def _are_normal(numbers: NDArray[np.float32]) -> bool:
    with np.errstate(invalid="ignore"):
        sizes = np.abs(numbers)
        inside = (sizes >= _NORMAL[0]) & (sizes <= _NORMAL[1])
    return bool(inside.mean() > 0.95)
