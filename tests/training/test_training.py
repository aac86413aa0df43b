"""What learning needs."""

import subprocess
import sys


def test_without_torch_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from graphopt.errors import GraphoptError\n"
        "try:\n    import graphopt.training.executor\n"
        "except GraphoptError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'graphopt[torch]'" in done.stdout
