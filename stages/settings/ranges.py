"""Ranges that several settings share; the command line reads them, and a reader sees them beside the value."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, MultipleOf

Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Le(0.5)]
Side = Annotated[int, Ge(32), MultipleOf(32)]
Size = tuple[Side, Side]
"""Height and width of what a network sees: both encoders halve it five times."""
