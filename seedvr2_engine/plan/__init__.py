"""What will be run, decided beforehand: pure integer arithmetic that needs no GPU, no CUDA and no Triton."""

from .compile import PlanOptions, compile_vae_plan
from .execution_plan import ExecutionPlan, PlanMemory, VAEShape

__all__ = ["ExecutionPlan", "PlanMemory", "PlanOptions", "VAEShape", "compile_vae_plan"]
