"""What will be run, decided beforehand: pure integer arithmetic that needs no GPU, no CUDA and no Triton."""

from .compile import PlanOptions, compile_vae_plan
from .execution_plan import ExecutionPlan, MemoryEstimate, VAEShape

__all__ = ["ExecutionPlan", "MemoryEstimate", "PlanOptions", "VAEShape", "compile_vae_plan"]
