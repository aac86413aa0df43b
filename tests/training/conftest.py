"""Without torch there is nothing to collect here but the message that says so."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") is not None else ["distillation", "executor", "rounding"]
