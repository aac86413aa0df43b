"""Every operator that is supported, by its name."""

from graphopt.training.executor import (
    activations,
    arithmetic,
    control,
    convolution,
    indexing,
    logic,
    movement,
    normalisation,
    pooling,
    products,
    quantisation,
    recurrent,
    reductions,
    resize,
)
from graphopt.training.executor.operator import Maker

OPERATORS: dict[str, Maker] = {
    **activations.OPERATORS,
    **arithmetic.OPERATORS,
    **control.OPERATORS,
    **convolution.OPERATORS,
    **indexing.OPERATORS,
    **logic.OPERATORS,
    **movement.OPERATORS,
    **normalisation.OPERATORS,
    **pooling.OPERATORS,
    **products.OPERATORS,
    **quantisation.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **resize.OPERATORS,
}
"""Those of the standard domain."""

WITH_BATCH_STATISTICS: dict[str, Maker] = {
    **control.WITH_BATCH_STATISTICS,
    **normalisation.WITH_BATCH_STATISTICS,
}
"""Those that compute something else in training, where batches have statistics of their own."""
