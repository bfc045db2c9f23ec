"""CRC-32 of parts, joined: the method of zlib's crc32_combine."""

from functools import cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31  # x^0: bits are reflected


def _multiply(a: int, b: int) -> int:
    """Multiplies two polynomials over GF(2), modulo CRC-32's."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@cache
def _shift(power: int) -> int:
    """x^(8 * 2^power): what 2^power bytes of zeros do."""
    if power == 0:
        return _ONE >> 8
    half = _shift(power - 1)
    return _multiply(half, half)


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32 of two stretches in a row, from that of each and the length of the second."""
    power = 0
    while second_bytes:
        if second_bytes & 1:
            first = _multiply(_shift(power), first)
        second_bytes >>= 1
        power += 1
    return first ^ second
