"""The learning rate of each step: linear warm-up from 0, then cosine to 0 (section 4.1; per iteration)."""

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of a step.

    Args:
        step: Number of the step, from 0.
        peak: After warm-up.
        warmup_steps: Steps of linear growth; the first has rate 0, as in the released code.
        total_steps: Steps of the whole run.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    through = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
