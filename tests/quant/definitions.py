"""The quantised formats by their definitions, in NumPy and FP64, one value after the other where that is clearer."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
H4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=np.float64)


def _e4m3(code: int) -> float:
    sign, exponent, mantissa = -1.0 if code >> 7 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


E4M3 = np.array([_e4m3(code) for code in range(256)])
"""What each byte stands for."""


def hadamard(group: int) -> Floats:
    """The matrix H of `group` rows."""
    matrix = H4
    while len(matrix) < group:
        matrix = np.kron(matrix, H4)
    return matrix / np.sqrt(group)


def rotated(values: Floats, group: int) -> Floats:
    """Each group of columns times H."""
    return (values.reshape(len(values), -1, group) @ hadamard(group)).reshape(values.shape)


def tile_index(row: int, column: int, columns: int) -> int:
    """Where the scale of a row and column lies in the tiles of scales with so many columns."""
    across = -(-columns // 4)
    return 512 * ((row // 128) * across + column // 4) + 16 * (row % 32) + 4 * ((row % 128) // 32) + column % 4


def tiles(codes: Bytes) -> Bytes:
    """Codes (rows, columns), tiled, in the shape of a file."""
    rows, columns = codes.shape
    out = np.zeros((-(-rows // 128) * 128, -(-columns // 4) * 4), np.uint8)
    for row in range(rows):
        for column in range(columns):
            out.reshape(-1)[tile_index(row, column, columns)] = codes[row, column]
    return out


def mxfp8(data: Bytes, codes: Bytes) -> Floats:
    """Bytes (rows, columns) and codes (rows, columns / 32), not tiled."""
    scale = np.where(codes == 0, 0.0, 2.0 ** (codes.astype(np.float64) - 127))
    scale[codes == 255] = np.nan
    return E4M3[data] * np.repeat(scale, 32, axis=1)


def nvfp4(data: Bytes, codes: Bytes, tensor_scale: float) -> Floats:
    """Bytes (rows, columns / 2) and E4M3 codes (rows, columns / 16), not tiled."""
    halves = np.stack([data >> 4, data & 15], axis=2).reshape(len(data), -1)
    values = np.where(halves & 8, -1.0, 1.0) * E2M1[halves & 7]
    return values * tensor_scale * np.repeat(E4M3[codes], 16, axis=1)
