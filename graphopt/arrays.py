"""Names for the types that carry data."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# Arrays by input name.
Feeds = Mapping[str, Array]
