"""The shape of a unit of work: C = A B with A (M, K), B (K, N) of int8 and C (M, N) of int32."""

from __future__ import annotations

from dataclasses import dataclass

from ullage.errors import UsageError

LARGEST_ENTRY = 128
"""The largest absolute value of an entry: int8 holds -128."""
MAX_INNER = (1 << 17) - 64
"""K < 2^17: then |c| <= K * 2^14 < 2^31 and int32 holds every sum, in whatever order it is made."""
MAX_OUTER = 1 << 14
_INNER_STEP = 64
_OUTER_STEP = 8
_SMALLEST = 32


@dataclass(frozen=True)
class Shape:
    """M, K, N. Raises UsageError for a shape that is not exact, or larger than a unit may be."""

    rows: int
    inner: int
    columns: int

    def __post_init__(self) -> None:
        for name, value, step, most in (
            ("M", self.rows, _OUTER_STEP, MAX_OUTER),
            ("K", self.inner, _INNER_STEP, MAX_INNER),
            ("N", self.columns, _OUTER_STEP, MAX_OUTER),
        ):
            if not _SMALLEST <= value <= most or value % step:
                raise UsageError(
                    f"{name} = {value} is no size for a unit of work: give a multiple of {step} "
                    f"between {_SMALLEST} and {most}."
                )

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`M,K,N`. Raises UsageError."""
        parts = text.split(",")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            raise UsageError(f"'{text}' is no shape; write M,K,N, for example 2048,8192,2048.")
        return cls(*(int(part) for part in parts))

    @property
    def operations(self) -> int:
        """Multiplications and additions: 2 M K N."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def entry_bound(self) -> int:
        """No entry of C is larger in absolute value: K * 2^14."""
        return self.inner * LARGEST_ENTRY**2

    def __str__(self) -> str:
        return f"{self.rows},{self.inner},{self.columns}"


CPU_SHAPE = Shape(2048, 8192, 2048)
"""Long inside: operands and hash stay a small share of the time (`benchmarks/work_verifier_cost.py`)."""
