"""The array that graphs take and give. Touches nothing."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
