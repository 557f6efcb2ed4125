"""Kernels: similarities of rows, with their own hyperparameters."""

from worker.core.kernels.composite import Kernel, Product, Simple, Sum
from worker.core.kernels.function import Evaluated, KernelFunction
from worker.core.kernels.points import Points
from worker.core.kernels.products import Linear, Polynomial
from worker.core.kernels.stationary import Matern, Periodic, RationalQuadratic, Rbf
from worker.core.kernels.widths import SharedWidth, WidthPerFeature, WidthPerGroup, Widths

__all__ = [
    "Evaluated",
    "Kernel",
    "KernelFunction",
    "Linear",
    "Matern",
    "Periodic",
    "Points",
    "Polynomial",
    "Product",
    "RationalQuadratic",
    "Rbf",
    "SharedWidth",
    "Simple",
    "Sum",
    "WidthPerFeature",
    "WidthPerGroup",
    "Widths",
]
