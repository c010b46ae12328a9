import subprocess
import sys

IMPORTED = """
from rf_cli import tasks
print(len(tasks.arguments_of("WanImageToVideoPipeline")) > 0)
"""


def test_importing_a_pipeline_prints_nothing_of_its_own():
    """In a fresh process: libraries hint at what is not installed while they are imported, once."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")
