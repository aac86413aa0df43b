"""Learning: models as torch modules, and what is learned on them from data. Needs the extra ``torch``."""

from importlib.util import find_spec

from graphopt.errors import GraphoptError

if find_spec("torch") is None:
    raise GraphoptError("learning needs torch: pip install 'graphopt[torch]'")
