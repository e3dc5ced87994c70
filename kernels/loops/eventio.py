"""Loop text of the EventIO decoders: bytes of sim_telarray objects to arrays.

Formats: K. Bernloehr, "The EventIO data format" and the hessio library (io_hess.c), as read by
eventio 2. A variable-length integer of n bytes begins with n - 1 set bits and a clear one; a signed
one counts 0, -1, 1, -2, 2, ...; the samples of a pixel are differences of signed ones.

No function reads outside of ``data[start:stop]``, whatever the bytes are. Each returns a negative
number for everything it does not know or that does not fit: the caller then leaves the object to
eventio, and what was written to `out` means nothing.

Places are uint64 inside, because Numba would look at each signed one for counting from the end.
"""

import numpy as np

from ._compile import compiled

__all__ = [
    "COLUMNS",
    "FULL",
    "differences",
    "signed_varints",
    "sub_objects",
    "true_image",
    "unsigned_varints",
]

COLUMNS = ("type", "version", "ident", "container", "start", "stop", "first", "n_inside")
"""Columns of the table of `sub_objects`."""

REFUSED, FULL = -1, -2

_0, _1, _2, _3, _4, _8 = (np.uint64(number) for number in (0, 1, 2, 3, 4, 8))
_BLOCK = np.uint64(16)  # samples decoded at once: 0.43 ns each on the first machine, 0.48 with 32
_HEADER, _EXTENDED = np.uint64(12), np.uint64(16)


@compiled
def _word(data, at):
    """Return four bytes as an unsigned number in an int64."""
    return (
        np.int64(data[at])
        | (np.int64(data[at + _1]) << 8)
        | (np.int64(data[at + _2]) << 16)
        | (np.int64(data[at + _3]) << 24)
    )


@compiled
def _signed(word):
    """Return an unsigned 32-bit number as the signed one of the same bits."""
    return word - (np.int64(1) << 32) if word >= (np.int64(1) << 31) else word


@compiled
def _varint(data, at, stop):
    """Return (unsigned value, place after it), place 0 where it is too long or cut off."""
    if at >= stop:
        return np.int64(0), _0
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + _1
    if first < 0xC0:
        if at + _2 > stop:
            return np.int64(0), _0
        return ((first & 0x3F) << 8) | np.int64(data[at + _1]), at + _2
    if first < 0xE0:
        if at + _3 > stop:
            return np.int64(0), _0
        middle = np.int64(data[at + _1]) << 8
        return ((first & 0x1F) << 16) | middle | np.int64(data[at + _2]), at + _3
    if first < 0xF0:
        if at + _4 > stop:
            return np.int64(0), _0
        middle = (np.int64(data[at + _1]) << 16) | (np.int64(data[at + _2]) << 8)
        return ((first & 0x0F) << 24) | middle | np.int64(data[at + _3]), at + _4
    return np.int64(0), _0  # five bytes and more: values that no such object holds


@compiled
def _zigzag(value):
    """Return the signed number of an unsigned code: 0, -1, 1, -2, 2, ..."""
    return (value >> 1) ^ -(value & 1)


@compiled
def differences(data, start, stop, n_values, out):
    """Return the place after `out`, filled with running sums of differences, or -1.

    The sum begins at 0 again after every `n_values` numbers.

    Parameters
    ----------
    data : uint8 (byte,)
    start, stop : place of the first difference, end of the object
    n_values : length of one series, such as the samples of a pixel; it divides the size of `out`
    out : uint16 or uint32 (value,); sums are taken modulo its range, as hessio does
    """
    at, stop, n_values = np.uint64(start), np.uint64(stop), np.uint64(n_values)
    n_out = np.uint64(out.size)
    if stop > np.uint64(data.size) or n_values == _0 or n_out % n_values != _0:
        return REFUSED
    k = _0
    while k < n_out:
        end = k + n_values
        value = np.int32(0)
        while k < end:
            step, at = _varint(data, at, stop)
            if at == _0:
                return REFUSED
            value += np.int32(_zigzag(step))
            out[k] = value
            k += _1
            while k + _BLOCK <= end and at + _BLOCK <= stop:
                bits = np.uint8(0)
                for i in range(_BLOCK):
                    bits |= data[at + i]
                if bits >= 0x80:  # not all of them are one byte long
                    break
                for i in range(_BLOCK):
                    value += _zigzag(np.int32(data[at + i]))
                    out[k + i] = value
                at += _BLOCK
                k += _BLOCK
    return np.int64(at)


@compiled
def unsigned_varints(data, start, stop, out):
    """Return the place after the numbers that fill `out` (int64), or -1."""
    at, stop = np.uint64(start), np.uint64(stop)
    if stop > np.uint64(data.size):
        return REFUSED
    for k in range(out.size):
        out[k], at = _varint(data, at, stop)
        if at == _0:
            return REFUSED
    return np.int64(at)


@compiled
def signed_varints(data, start, stop, out):
    """Return the place after the numbers that fill `out` (int64), or -1."""
    at = unsigned_varints(data, start, stop, out)
    for k in range(out.size):
        out[k] = _zigzag(out[k])
    return at


@compiled
def _inside(data, start, stop, parent, n, table):
    """Add the objects that tile ``data[start:stop]`` to the table; return its length, -1 or -2."""
    at = start
    first = n
    while at < stop:
        if at + _HEADER > stop:
            return REFUSED
        if n >= table.shape[0]:
            return FULL
        word, ident, length = _word(data, at), _word(data, at + _4), _word(data, at + _8)
        begin = at + _HEADER
        size = length & 0x3FFFFFFF
        if word & 0x20000:  # extended: twelve more bits of the length
            begin = at + _EXTENDED
            if begin > stop:
                return REFUSED
            size |= (_word(data, at + _HEADER) & 0xFFF) << 30
        if np.uint64(size) > stop - begin:
            return REFUSED
        at = begin + np.uint64(size)
        table[n, 0] = word & 0xFFFF
        table[n, 1] = word >> 20
        table[n, 2] = _signed(ident)
        table[n, 3] = (length >> 30) & 1
        table[n, 4] = np.int64(begin)
        table[n, 5] = np.int64(at)
        table[n, 6] = 0
        table[n, 7] = 0
        n += 1
    if parent >= 0:
        table[parent, 6] = first
        table[parent, 7] = n - first
    return n


@compiled
def sub_objects(data, start, stop, table):
    """Return the number of objects inside an object, in two levels, -1, or -2: the table is full.

    Parameters
    ----------
    data : uint8 (byte,)
    start, stop : content of the outer object
    table : int64 (object, 8), filled with `COLUMNS`: first all objects at the first level, then
        those inside each of them that is a container, found by `first` and `n_inside`
    """
    start, stop = np.uint64(start), np.uint64(stop)
    if start > stop or stop > np.uint64(data.size):
        return REFUSED
    n_outer = _inside(data, start, stop, -1, 0, table)
    n = n_outer
    for row in range(n_outer):
        if table[row, 3]:
            n = _inside(data, np.uint64(table[row, 4]), np.uint64(table[row, 5]), row, n, table)
            if n < 0:
                return n
    return n


@compiled
def true_image(data, start, stop, version, has_amplitudes, n_listed, n_total, out):
    """Return the place after the photo-electrons of a list of pixels, or -1.

    Parameters
    ----------
    data : uint8 (byte,)
    start, stop : place of the first pixel, end of the object
    version : of the object; up to 2 a pixel is an int16, from 3 on a signed varint
    has_amplitudes : each photo-electron has a second number after the times of its pixel
    n_listed, n_total : pixels in the list, sum of their photo-electrons
    out : int32 (pixel,), zeros; filled with the photo-electrons of each pixel
    """
    at, stop = np.uint64(start), np.uint64(stop)
    n_left = np.int64(n_total)
    if stop > np.uint64(data.size):
        return REFUSED
    for _ in range(n_listed):
        if version > 2:
            code, at = _varint(data, at, stop)
            pixel = _zigzag(code)
            if at == _0:
                return REFUSED
        else:
            if at + _2 > stop:
                return REFUSED
            pixel = np.int64(data[at]) | (np.int64(data[at + _1]) << 8)
            at += _2
        if pixel < 0 or pixel >= out.size or at + _4 > stop:
            return REFUSED
        n = _signed(_word(data, at))
        at += _4
        n_left -= n
        n_bytes = np.uint64(n) * (_8 if has_amplitudes else _4)
        if n < 0 or n_left < 0 or n_bytes > stop - at:
            return REFUSED
        out[pixel] = n
        at += n_bytes
    return np.int64(at)
